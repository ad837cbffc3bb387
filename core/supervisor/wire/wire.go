// Package wire holds what a node and the supervisor of a server say to each other:
// routes and JSON bodies, and nothing that does anything. The server's side is package
// supervisor, the node's side package agent.
package wire

// Routes, all below the API's address. CACerts answers anyone; Join asks for HTTP basic
// authentication with the token's user and secret; Component asks for a client
// certificate of a node (CN=system:node:<name>), which the supervisor verifies against
// the client CA by itself, and so does ComponentServing.
const (
	CACertsPath          = "/v1-k3m/cacerts"
	JoinPath             = "/v1-k3m/join"
	ComponentPath        = "/v1-k3m/component"
	ComponentServingPath = "/v1-k3m/component/serving"
)

// MaxBody is the most bytes that either side reads of a body.
const MaxBody = 1 << 20

// JoinRequest asks for a node's certificates. Sent with basic authentication.
type JoinRequest struct {
	// NodeName is the Kubernetes node's name.
	NodeName string `json:"nodeName"`
	// NodePassword is made by the node at its first join and kept: a second machine
	// can't take a name that is in use.
	NodePassword string `json:"nodePassword"`
	// NodeIPs go into the serving certificate.
	NodeIPs []string `json:"nodeIPs"`
	// CSRs are PEM certificate requests of keys that stay on the node. The server takes
	// nothing but the public keys from them.
	KubeletClientCSR  string `json:"kubeletClientCSR"`
	KubeletServingCSR string `json:"kubeletServingCSR"`
	KubeProxyCSR      string `json:"kubeProxyCSR"`
}

// JoinResponse gives a node its certificates and the cluster's facts.
type JoinResponse struct {
	// ServerCA signs what servers and kubelets show, ClientCA what clients show (the
	// kubelet verifies the API server's requests with it). PEM, as the certificates.
	ServerCA           string `json:"serverCA"`
	ClientCA           string `json:"clientCA"`
	KubeletClientCert  string `json:"kubeletClientCert"`
	KubeletServingCert string `json:"kubeletServingCert"`
	KubeProxyCert      string `json:"kubeProxyCert"`

	Cluster ClusterFacts `json:"cluster"`
}

// ClusterFacts are what every node of a cluster must agree on.
type ClusterFacts struct {
	ClusterCIDRs  []string `json:"clusterCIDRs"`
	ServiceCIDRs  []string `json:"serviceCIDRs"`
	ClusterDNS    []string `json:"clusterDNS"`
	ClusterDomain string   `json:"clusterDomain"`
}

// ComponentRequest asks for a certificate of a component on the asking node: its client
// certificate or, at ComponentServing, one for the DNS names of its Services.
type ComponentRequest struct {
	// ID is the component's, "cni.flannel".
	ID string `json:"id"`
	// CSR is a PEM certificate request; only its public key is used.
	CSR string `json:"csr"`
}

// ComponentResponse carries the certificate: CN=k3m:component:<id>:<node>, or a serving one
// that the server CA signed.
type ComponentResponse struct {
	Cert string `json:"cert"`
}

// Error is the body of every answer that is not 2xx.
type Error struct {
	// Message is one sentence for the person who started the node.
	Message string `json:"message"`
}
