// Package pki keeps the certificate authorities of a cluster and issues leaf
// certificates from them.
//
// Four authorities live in <data-dir>/server/tls, each a certificate and a key:
//
//	server-ca           signs what API servers and kubelets show to who calls them
//	client-ca           signs what says who a caller is: users, nodes, components
//	request-header-ca   signs the aggregator's own client certificate, and nothing else
//	service-account     a key pair, no certificate: signs service account tokens
//
// They are apart because each is a different power: who holds the client authority can be
// anybody, who holds the server authority can only pretend to be a server.
//
// All keys are ECDSA P-256. Authorities are valid for ten years, leaves for one. A leaf is
// looked at when the server starts and issued anew when less than 90 days of it are left
// (kubeadm renews at about the same point) or when anything that it should say has changed;
// a server that runs for more than a year without a restart must be restarted.
//
// Authorities are made once, all at the same time, when there is no cluster yet: they are
// written to a temporary directory that is then renamed, so a crash leaves all or none. They
// are never made again over an existing cluster: a missing or corrupt file is an error that
// names the file, because every certificate and token of the cluster would die with it.
package pki
