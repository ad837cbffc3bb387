// Package supervisor lets nodes join a cluster. It is the server's side of package wire, mounted
// in front of the API server's own handlers, on the same port:
//
//	GET  /v1-k3m/cacerts    anyone            the server CA, which the token's hash vouches for
//	POST /v1-k3m/join       the token         certificates of a node, and the cluster's facts
//	POST /v1-k3m/component  a node            the certificate of a component on that node
//
// It stands before the API server's authentication, limits and panic handler, so it has its
// own. In particular the listener only asks for client certificates and checks none: who
// shows one is believed only after the chain was verified against the client CA, here.
//
// Keys stay with who made them: of a certificate request nothing but the public key is used,
// and what the certificate says is decided here.
//
// The first node of a name sets the name's password, kept hashed in a Secret of kube-system;
// later joins under the name need it. So a token lets nobody become a node that exists. The
// server's own name is taken from the start: it joins over the loopback alone. Nor does a node get
// a certificate with an address of the API server or of another node.
//
// Wrong tokens are counted by address, and requests wait for their turn by address or node, then
// all together: limit.go.
package supervisor
