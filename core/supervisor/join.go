package supervisor

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// Names and groups that Kubernetes gives to nodes' certificates: the Node authorizer and
// NodeRestriction go by the first two, the ClusterRoleBinding system:node-proxier by the third.
const (
	nodeUserPrefix = "system:node:"
	nodesGroup     = "system:nodes"
	proxyUser      = "system:kube-proxy"
)

const (
	maxNodeIPs = 16
	// A password that the agent makes is longer; this is against none at all.
	minPassword = 16
	maxPassword = 1024
)

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// join gives a node its certificates.
func (s *Supervisor) join(r *http.Request) (any, error) {
	if err := s.authorize(r); err != nil {
		return nil, err
	}
	if err := s.queue(r.Context(), source(r)); err != nil {
		return nil, err
	}
	var req wire.JoinRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	node, err := checkJoin(&req)
	if err != nil {
		return nil, err
	}
	if err := s.checkNames(req.NodeName, node.names.IPs, peerAddr(r)); err != nil {
		return nil, err
	}
	// Before anything is signed.
	if err := s.passwords.check(r.Context(), req.NodeName, req.NodePassword); err != nil {
		return nil, err
	}
	if err := s.checkAddresses(r.Context(), req.NodeName, node.names.IPs); err != nil {
		return nil, err
	}

	resp := &wire.JoinResponse{
		ServerCA: string(s.opts.PKI.Server.PEM),
		ClientCA: string(s.opts.PKI.Client.PEM),
		Cluster:  s.opts.Cluster,
	}
	for _, c := range []struct {
		into *string
		by   *pki.Authority
		key  crypto.PublicKey
		leaf pki.Leaf
	}{
		{&resp.KubeletClientCert, s.opts.PKI.Client, node.kubeletClient, pki.Client(nodeUserPrefix+req.NodeName, nodesGroup)},
		{&resp.KubeletServingCert, s.opts.PKI.Server, node.kubeletServing, pki.Serving(nodeUserPrefix+req.NodeName, node.names)},
		{&resp.KubeProxyCert, s.opts.PKI.Client, node.proxy, pki.Client(proxyUser)},
	} {
		cert, err := c.by.Sign(c.leaf, c.key)
		if err != nil {
			return nil, err
		}
		*c.into = string(cert)
	}
	klog.InfoS("node joins", "node", req.NodeName, "addresses", req.NodeIPs, "from", r.RemoteAddr)
	return resp, nil
}

// joining is a join request that is in order.
type joining struct {
	names                                pki.SANs
	kubeletClient, kubeletServing, proxy crypto.PublicKey
}

// checkJoin finds what is wrong with a request, in words for who started the node.
func checkJoin(req *wire.JoinRequest) (*joining, error) {
	if why := validation.IsDNS1123Subdomain(req.NodeName); len(why) > 0 {
		return nil, refuse(http.StatusBadRequest, "%q can't be a node's name: %s", req.NodeName, strings.Join(why, "; "))
	}
	if n := len(req.NodePassword); n < minPassword || n > maxPassword {
		return nil, refuse(http.StatusBadRequest, "a node's password must have %d to %d characters", minPassword, maxPassword)
	}
	if n := len(req.NodeIPs); n == 0 || n > maxNodeIPs {
		return nil, refuse(http.StatusBadRequest, "a node must have 1 to %d addresses, not %d", maxNodeIPs, n)
	}
	node := &joining{names: pki.SANs{DNSNames: []string{req.NodeName}, IPs: []netip.Addr{loopback4, loopback6}}}
	for _, text := range req.NodeIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
			return nil, refuse(http.StatusBadRequest, "%q can't be a node's address", text)
		}
		if ip = ip.Unmap(); ip != loopback4 && ip != loopback6 {
			node.names.IPs = append(node.names.IPs, ip)
		}
	}
	for _, csr := range []struct {
		what string
		pem  string
		into *crypto.PublicKey
	}{
		{"kubelet's client", req.KubeletClientCSR, &node.kubeletClient},
		{"kubelet's serving", req.KubeletServingCSR, &node.kubeletServing},
		{"kube-proxy's", req.KubeProxyCSR, &node.proxy},
	} {
		key, err := pki.RequestedKey([]byte(csr.pem))
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "the %s %v", csr.what, err)
		}
		*csr.into = key
	}
	return node, nil
}

// checkNames keeps a node from a serving certificate with which it could pass as the API: both are
// signed by the server authority. This server's own node may have those names: it joins from
// this machine. Its password alone doesn't do: at the first start whoever comes first sets it.
func (s *Supervisor) checkNames(node string, ips []netip.Addr, from netip.Addr) error {
	if node == s.opts.NodeName {
		if !from.IsLoopback() && (!from.IsValid() || from != s.opts.Local) {
			return refuse(http.StatusForbidden, "%q is the name of the server's own node: choose another --node-name", node)
		}
		return nil
	}
	if slices.Contains(s.opts.API.DNSNames, node) {
		return refuse(http.StatusForbidden, "%q is a name of the API server: choose another --node-name", node)
	}
	for _, ip := range ips {
		if ip != loopback4 && ip != loopback6 && slices.Contains(s.opts.API.IPs, ip) {
			return refuse(http.StatusForbidden, "%s is an address of the API server: choose another --node-ip", ip)
		}
	}
	return nil
}

// checkAddresses keeps a node from a serving certificate with which it could pass as another
// node's kubelet. This server's own node is believed, so that a node that took its address can't
// keep it from starting. It comes after the password's check, which has waited for the API.
func (s *Supervisor) checkAddresses(ctx context.Context, node string, ips []netip.Addr) error {
	if node == s.opts.NodeName {
		return nil
	}
	// From the API server's cache: who joins at the same moment has no Node object either way.
	nodes, err := s.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("look up the nodes' addresses: %w", err)
	}
	for _, other := range nodes.Items {
		if other.Name == node {
			continue
		}
		for _, a := range other.Status.Addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err != nil {
				continue // a host name
			}
			if ip = ip.Unmap(); !ip.IsLoopback() && slices.Contains(ips, ip) {
				return refuse(http.StatusForbidden, "%s is an address of node %s: choose another --node-ip, or, if that node is gone, run: k3m kubectl delete node %s",
					ip, other.Name, other.Name)
			}
		}
	}
	return nil
}

// node returns the name of the node that asks. The TLS handshake has verified only that the
// other side holds the key of the certificate that it shows; that the client CA signed it is
// verified here.
func (s *Supervisor) node(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", refuse(http.StatusUnauthorized, "a node must show its client certificate")
	}
	cert := r.TLS.PeerCertificates[0]
	intermediates := x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:         s.opts.PKI.Client.Pool(),
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", refuse(http.StatusUnauthorized, "the node's certificate is not this cluster's: %v", err)
	}
	name, ok := strings.CutPrefix(cert.Subject.CommonName, nodeUserPrefix)
	if !ok || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != nodesGroup {
		return "", refuse(http.StatusForbidden, "the certificate of %q is not a node's", cert.Subject.CommonName)
	}
	return name, nil
}
