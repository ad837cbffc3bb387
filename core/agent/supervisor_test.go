package agent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// supervisor is the server's side of a join, with real authorities and TLS.
type supervisor struct {
	*httptest.Server
	pki   *pki.PKI
	token string

	mu sync.Mutex
	// passwords of the nodes that joined
	passwords map[string]string
	// intercept, if it returns true, has answered in the supervisor's place
	intercept func(w http.ResponseWriter, r *http.Request) bool
}

const testSecret = "it-is-a-secret"

func newSupervisor(t *testing.T) *supervisor {
	t.Helper()
	s := &supervisor{passwords: map[string]string{}}
	var err error
	if s.pki, err = pki.Ensure(t.TempDir()+"/tls", false); err != nil {
		t.Fatal(err)
	}
	s.token = "K10" + s.pki.Server.Hash() + "::node:" + testSecret
	cert, key, err := s.pki.Server.Issue(pki.Serving("k3m", pki.SANs{IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *supervisor) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.intercept != nil && s.intercept(w, r) {
		return
	}
	switch r.URL.Path {
	case wire.CACertsPath:
		_, _ = w.Write(s.pki.Server.PEM)
	case wire.JoinPath:
		s.join(w, r)
	case wire.ComponentPath, wire.ComponentServingPath:
		s.component(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *supervisor) join(w http.ResponseWriter, r *http.Request) {
	user, secret, _ := r.BasicAuth()
	if user != "node" || secret != testSecret {
		fail(w, http.StatusUnauthorized, "the token is wrong")
		return
	}
	var req wire.JoinRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if known, ok := s.passwords[req.NodeName]; ok && known != req.NodePassword {
		fail(w, http.StatusForbidden, "another machine has the name "+req.NodeName)
		return
	}
	s.passwords[req.NodeName] = req.NodePassword
	ips := pki.SANs{DNSNames: []string{req.NodeName}}
	for _, ip := range req.NodeIPs {
		ips.IPs = append(ips.IPs, netip.MustParseAddr(ip))
	}
	_ = json.NewEncoder(w).Encode(wire.JoinResponse{
		ServerCA:           string(s.pki.Server.PEM),
		ClientCA:           string(s.pki.Client.PEM),
		KubeletClientCert:  s.sign(s.pki.Client, pki.Client("system:node:"+req.NodeName, "system:nodes"), req.KubeletClientCSR),
		KubeletServingCert: s.sign(s.pki.Server, pki.Serving(req.NodeName, ips), req.KubeletServingCSR),
		KubeProxyCert:      s.sign(s.pki.Client, pki.Client("system:kube-proxy"), req.KubeProxyCSR),
		Cluster: wire.ClusterFacts{
			ClusterCIDRs: []string{"10.42.0.0/16"}, ServiceCIDRs: []string{"10.43.0.0/16"},
			ClusterDNS: []string{"10.43.0.10"}, ClusterDomain: "cluster.local",
		},
	})
}

func (s *supervisor) component(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 {
		fail(w, http.StatusUnauthorized, "no client certificate")
		return
	}
	leaf := r.TLS.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: s.pki.Client.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		fail(w, http.StatusUnauthorized, err.Error())
		return
	}
	var req wire.ComponentRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	node := leaf.Subject.CommonName[len("system:node:"):]
	cert := s.sign(s.pki.Client, pki.Client("k3m:component:"+req.ID+":"+node, "k3m:components"), req.CSR)
	if r.URL.Path == wire.ComponentServingPath {
		cert = s.sign(s.pki.Server, pki.Serving(req.ID, pki.SANs{DNSNames: []string{"kube-dns.kube-system.svc"}}), req.CSR)
	}
	_ = json.NewEncoder(w).Encode(wire.ComponentResponse{Cert: cert})
}

func (s *supervisor) sign(a *pki.Authority, leaf pki.Leaf, csr string) string {
	key, err := pki.RequestedKey([]byte(csr))
	if err != nil {
		panic(err)
	}
	cert, err := a.Sign(leaf, key)
	if err != nil {
		panic(err)
	}
	return string(cert)
}

func fail(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(wire.Error{Message: message})
}

// options are those of an agent of s.
func (s *supervisor) options(t *testing.T) Options {
	t.Helper()
	return Options{
		NodeName: "n1", NodeIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
		DataDir: t.TempDir(), ServerURL: s.URL, Token: s.token,
		Runtime: neverRuntime, Logger: slog.New(slog.DiscardHandler),
	}
}

func newTestAgent(t *testing.T, o Options) *Agent {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// freeAddr is an address on which nobody listens for now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

const soon = 10 * time.Second
