package controlplane_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/token"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// serverPool trusts the cluster's server authority, as a node does after it checked the hash.
func serverPool(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(admin.CAData) {
		t.Fatal("no authority in the kubeconfig")
	}
	return pool
}

// ask posts a body to the supervisor.
func ask(t *testing.T, path string, body any, user, secret string, cert *tls.Certificate) (int, []byte) {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, admin.Host+path, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, secret)
	}
	config := &tls.Config{RootCAs: serverPool(t)}
	if cert != nil {
		// Whatever authorities the server says that it knows.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// member is a node that joined.
type member struct {
	resp    wire.JoinResponse
	kubelet tls.Certificate
	config  *rest.Config
}

func nodeToken(t *testing.T) token.Token {
	t.Helper()
	data, err := os.ReadFile(controlplane.TokenFile(opts.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Parse(string(data))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func joinRequest(t *testing.T, name, password string) (wire.JoinRequest, []byte) {
	t.Helper()
	csr, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return wire.JoinRequest{
		NodeName: name, NodePassword: password, NodeIPs: []string{"192.0.2.21", "fd00::21"},
		KubeletClientCSR: string(csr), KubeletServingCSR: string(csr), KubeProxyCSR: string(csr),
	}, key
}

func join(t *testing.T, name, password string) *member {
	t.Helper()
	req, key := joinRequest(t, name, password)
	tok := nodeToken(t)
	status, body := ask(t, wire.JoinPath, req, tok.User, tok.Secret, nil)
	if status != http.StatusOK {
		t.Fatalf("join: %d %s", status, body)
	}
	m := &member{}
	if err := json.Unmarshal(body, &m.resp); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.kubelet, err = tls.X509KeyPair([]byte(m.resp.KubeletClientCert), key); err != nil {
		t.Fatal(err)
	}
	m.config = rest.AnonymousClientConfig(admin)
	m.config.CertData, m.config.KeyData = []byte(m.resp.KubeletClientCert), key
	return m
}

const password = "a password that only this node knows"

func TestJoin(t *testing.T) {
	if got := nodeToken(t).CAHash; got != pki.Hash(admin.CAData) {
		t.Errorf("the token names authority %s, the kubeconfig holds %s", got, pki.Hash(admin.CAData))
	}
	m := join(t, "join-1", password)

	serving, err := pki.ParseCertificate([]byte(m.resp.KubeletServingCert))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"join-1", "192.0.2.21", "fd00::21", "127.0.0.1"} {
		if _, err := serving.Verify(x509.VerifyOptions{DNSName: name, Roots: serverPool(t)}); err != nil {
			t.Errorf("serving certificate as %s: %v", name, err)
		}
	}
	if got := fmt.Sprint(m.resp.Cluster); got != "{[10.42.0.0/16] [10.43.0.0/16] [10.43.0.10] cluster.local}" {
		t.Errorf("cluster facts %s", got)
	}

	// What a kubelet may do with its certificate, and what not: Node authorizer, NodeRestriction.
	kubelet := kubernetes.NewForConfigOrDie(m.config)
	node, err := kubelet.CoreV1().Nodes().Create(t.Context(), newNode("join-1"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteNode(t, node.Name) })
	if _, err := kubelet.CoreV1().Nodes().Create(t.Context(), newNode("another"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("created another node: %v", err)
	}
	if _, err := kubelet.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listed secrets: %v", err)
	}
}

func TestJoinKeepsThePasswordHashed(t *testing.T) {
	join(t, "join-2", password)
	secret, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), "join-2.node-password.k3m", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range secret.Data {
		if strings.Contains(string(value), password) {
			t.Errorf("%s holds the password", key)
		}
	}
}

func TestJoinUnderATakenName(t *testing.T) {
	join(t, "join-3", password)
	join(t, "join-3", password) // the same node, again

	req, _ := joinRequest(t, "join-3", "another machine's password")
	tok := nodeToken(t)
	status, body := ask(t, wire.JoinPath, req, tok.User, tok.Secret, nil)
	if status != http.StatusForbidden || !strings.Contains(string(body), "choose another --node-name") {
		t.Fatalf("%d %s", status, body)
	}
	// The answer says how to free the name.
	if err := client.CoreV1().Secrets("kube-system").Delete(t.Context(), "join-3.node-password.k3m", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	join(t, "join-3", "another machine's password")
}

// The server's own node is allowed the server's names; it comes over the loopback.
func TestJoinAsTheServer(t *testing.T) {
	join(t, "server-1", password)
}

func TestJoinWithATakenAddress(t *testing.T) {
	node := newNode("join-6")
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "join-6"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.66"}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteNode(t, node.Name) })
	tok := nodeToken(t)
	for name, want := range map[string]int{
		"join-6":   http.StatusOK, // the same node, again
		"join-7":   http.StatusForbidden,
		"server-1": http.StatusOK, // it must be able to start
	} {
		req, _ := joinRequest(t, name, password)
		req.NodeIPs = []string{"192.0.2.77", "::ffff:192.0.2.66"}
		status, body := ask(t, wire.JoinPath, req, tok.User, tok.Secret, nil)
		if status != want || want == http.StatusForbidden && !strings.Contains(string(body), "192.0.2.66 is an address of node join-6: choose another --node-ip") {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

func TestJoinNeedsTheToken(t *testing.T) {
	req, _ := joinRequest(t, "join-4", password)
	if status, body := ask(t, wire.JoinPath, req, "node", "not the token", nil); status != http.StatusUnauthorized {
		t.Errorf("%d %s", status, body)
	}
	if _, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), "join-4.node-password.k3m", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the name was taken without a token: %v", err)
	}
}

func TestComponentCertificateOfANode(t *testing.T) {
	m := join(t, "join-5", password)
	csr, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	status, body := ask(t, wire.ComponentPath, wire.ComponentRequest{ID: "addon.whoami", CSR: string(csr)}, "", "", &m.kubelet)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	var resp wire.ComponentResponse
	if err := json.Unmarshal(body, &resp); err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(admin)
	config.CertData, config.KeyData = []byte(resp.Cert), key
	user := whoAmI(t, config)
	if user.Username != "k3m:component:addon.whoami:join-5" {
		t.Errorf("the API server knows it as %q", user.Username)
	}
	slices.Sort(user.Groups)
	if got := strings.Join(user.Groups, " "); got != "k3m:component:addon.whoami k3m:components system:authenticated" {
		t.Errorf("groups %q", got)
	}
	if status, body := ask(t, wire.ComponentPath, wire.ComponentRequest{ID: "addon.other", CSR: string(csr)}, "", "", &m.kubelet); status != http.StatusForbidden {
		t.Errorf("a component that isn't selected: %d %s", status, body)
	}
}

// The listener asks for client certificates without checking them: neither the supervisor nor
// the API may believe one that the client authority did not sign.
func TestSelfSignedNodeIsRefused(t *testing.T) {
	dir := t.TempDir()
	foreign, err := pki.Ensure(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := foreign.Client.Issue(pki.Client("system:node:server-1", "system:nodes"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	csr, _, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	status, body := ask(t, wire.ComponentPath, wire.ComponentRequest{ID: "addon.whoami", CSR: string(csr)}, "", "", &cert)
	if status != http.StatusUnauthorized || !strings.Contains(string(body), "not this cluster's") {
		t.Errorf("supervisor: %d %s", status, body)
	}
	if status, body := ask(t, "/apis/authentication.k8s.io/v1/selfsubjectreviews", struct{}{}, "", "", &cert); status != http.StatusUnauthorized {
		t.Errorf("API: %d %s", status, body)
	}
}

func TestServingCertificateNames(t *testing.T) {
	address := strings.TrimPrefix(admin.Host, "https://")
	for _, name := range []string{"kubernetes", "kubernetes.default.svc.cluster.local", "localhost", "server-1", "127.0.0.1", "10.43.0.1", "192.0.2.10"} {
		if err := handshake(t, address, &tls.Config{RootCAs: serverPool(t), ServerName: name}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	old := &tls.Config{RootCAs: serverPool(t), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	if err := handshake(t, address, old); err == nil {
		t.Error("speaks TLS 1.1")
	}
}

func handshake(t *testing.T, address string, config *tls.Config) error {
	t.Helper()
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
