package supervisor_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

const secret = "a-secret-of-the-tests"

// server runs a supervisor over TLS as the API server does: it asks for client certificates
// and does not check them. Join's last step, the node's password, needs an API: package
// controlplane tests it.
func server(t *testing.T) (*pki.PKI, *httptest.Server) {
	t.Helper()
	authorities, err := pki.Ensure(filepath.Join(t.TempDir(), "tls"), false)
	if err != nil {
		t.Fatal(err)
	}
	s, err := supervisor.New(supervisor.Options{
		PKI:    authorities,
		Token:  secret,
		Client: &rest.Config{Host: "https://127.0.0.1:1"},

		NodeName: "server-1",
		API: pki.SANs{
			DNSNames: []string{"kubernetes", "kubernetes.default.svc", "server-1"},
			IPs:      []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.43.0.1"), netip.MustParseAddr("192.0.2.10")},
		},
		Component: func(id, node string) ([]string, bool) {
			if id == "addon.panics" {
				panic("a component that panics")
			}
			return []string{"k3m:component:" + id, "k3m:components"}, id == "cni.flannel" || id == "addon.server" && node == "server-1"
		},
		Services: func(id, node string) ([]string, bool) {
			services := map[string][]string{"addon.web": {"kube-system/web", "web/too"}, "addon.server": {"kube-system/web"}, "addon.api": {"default/kubernetes"}}[id]
			return services, services != nil && (id != "addon.server" || node == "server-1")
		},
		Cluster: wire.ClusterFacts{ClusterDomain: "cluster.local"},
	})
	if err != nil {
		t.Fatal(err)
	}
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "the API") })
	srv := httptest.NewUnstartedServer(s.Wrap(api))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return authorities, srv
}

// call makes a request, with a client certificate if there is one.
func call(t *testing.T, srv *httptest.Server, r *http.Request, cert *tls.Certificate) (int, string) {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true} // of the test's own server
	if cert != nil {
		// Whatever authorities the server says that it knows.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func post(t *testing.T, url string, body any) *http.Request {
	t.Helper()
	data, ok := body.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func csr(t *testing.T) string {
	t.Helper()
	requestPEM, _, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return string(requestPEM)
}

// issued is a certificate of an authority as a TLS client shows it.
func issued(t *testing.T, a *pki.Authority, leaf pki.Leaf) *tls.Certificate {
	t.Helper()
	certPEM, keyPEM, err := a.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// selfSigned is a certificate that says what a node's says, signed by its own key.
func selfSigned(t *testing.T, leaf pki.Leaf) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		ExtKeyUsage:  leaf.Usage,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
