package traefik

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// testACME lets the component's process get certificates from an ACME server, and start anew. The Service outside is there.
func testACME(t *testing.T, admin *rest.Config, executable, port string) {
	authority := newAuthority(t)
	ingress := func(host, resolver string) {
		apply(t, admin, fmt.Appendf(nil, `{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": %q, "namespace": "default",
			"annotations": {"traefik.ingress.kubernetes.io/router.tls.certresolver": %q}},
			"spec": {"ingressClassName": "traefik", "rules": [{"host": %q, "http": {"paths": [{"path": "/", "pathType": "Prefix",
			"backend": {"service": {"name": "outside", "port": {"number": %s}}}}]}}]}}`, host, resolver, host, port))
	}
	ingress("http.acme.test", "http")
	ingress("tls.acme.test", "tls")
	resolver := map[string]any{"email": "admin@acme.test", "caServer": authority.server.URL + wfe.DirectoryPath,
		"caCertificates": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.server.Certificate().Raw}))}
	overHTTP, overTLS := maps.Clone(resolver), maps.Clone(resolver)
	overHTTP["httpChallenge"], overTLS["tlsChallenge"] = true, true
	block, err := json.Marshal(map[string]any{"allowExternalNameServices": true, "acme": map[string]any{"http": overHTTP, "tls": overTLS}})
	must(t, err)
	request := client.RunRequest{Kubeconfig: identity(t, admin), Config: block, StateDir: t.TempDir(),
		Facts: sdk.Facts{NodeName: "n1", ClusterDomain: "cluster.local", PodGateways: []netip.Addr{netip.MustParseAddr(gateway)}}}

	stop := startComponent(t, executable, request)
	first := map[string]*big.Int{}
	for _, host := range []string{"http.acme.test", "tls.acme.test"} {
		first[host] = authority.certifies(t, host)
	}
	stop()
	info, err := os.Stat(filepath.Join(request.StateDir, storage))
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("%s has the mode %v, want 0600", storage, info.Mode())
	}

	defer startComponent(t, executable, request)()
	for host, serial := range first {
		if again := authority.certifies(t, host); again.Cmp(serial) != 0 {
			t.Errorf("%s: after a restart the certificate is %x, before it %x", host, again, serial)
		}
	}
	// When a new name has its certificate, what else the restart would ask for was asked for.
	ingress("later.acme.test", "http")
	authority.certifies(t, "later.acme.test")
	if n := authority.asked("newOrder"); n != 3 {
		t.Errorf("%d certificates were ordered, want one for each of 3 names", n)
	}
}

// startComponent runs the component's process, as k3m does, until stop is called.
func startComponent(t *testing.T, executable string, request client.RunRequest) (stop func()) {
	t.Helper()
	sockets, err := os.MkdirTemp("", "k3m") // t.TempDir is too long for a socket's path
	must(t, err)
	lifeline, hold, err := os.Pipe()
	must(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), executable, id)
	cmd.ExtraFiles = []*os.File{lifeline}
	cmd.Env = []string{client.EnvLifeline + "=3", client.EnvLogLevel + "=info", goplugin.EnvUnixSocketDir + "=" + sockets}
	config := &goplugin.ClientConfig{Cmd: cmd, StartTimeout: eventually, Stderr: t.Output(), Logger: hclog.NewNullLogger()}
	client.Configure(config)
	process := goplugin.NewClient(config)
	ended := make(chan error, 1)
	stop = sync.OnceFunc(func() {
		defer os.RemoveAll(sockets)
		defer process.Kill()
		defer hold.Close()
	})
	t.Cleanup(stop)
	c, err := client.Connect(process, sockets)
	_ = lifeline.Close()
	must(t, err)
	go func() { ended <- c.Run(context.WithoutCancel(t.Context()), request, func(client.Report) {}) }()
	end := stop
	stop = sync.OnceFunc(func() {
		if err := c.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("stop the component: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("the component ended: %v", err)
		}
		end()
	})
	t.Cleanup(stop)
	return stop
}

// authority is Let's Encrypt's ACME server for tests. All names lead it to the gateway.
type authority struct {
	server *httptest.Server
	roots  *x509.CertPool

	mu    sync.Mutex
	paths map[string]int
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	names := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		answer := new(dns.Msg).SetReply(query)
		if q := query.Question[0]; q.Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(gateway)}}
		}
		_ = w.WriteMsg(answer)
	})}
	served := make(chan error, 1)
	go func() { served <- names.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = l.Close()
		<-served
	})
	logger, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	signer := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	checker := va.New(logger, listenHTTP, listenHTTPS, false, l.Addr().String(), store)
	front := wfe.New(logger, store, checker, signer, nil, false, false, 1, 1)
	handler := front.Handler()
	a := &authority{roots: x509.NewCertPool(), paths: map[string]int{}}
	a.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.paths[r.URL.Path]++
		a.mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(a.server.Close)
	a.roots.AddCert(signer.GetRootCert(0).Cert)
	return a
}

// asked is how often one of the directory's resources was asked for.
func (a *authority) asked(resource string) int {
	var directory map[string]any
	answer, err := a.server.Client().Get(a.server.URL + wfe.DirectoryPath)
	if err != nil {
		return -1
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&directory); err != nil {
		return -1
	}
	at, _ := directory[resource].(string)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.paths[at[len(a.server.URL):]]
}

// certifies waits until the component serves a name with a certificate of the authority, and returns its serial number.
func (a *authority) certifies(t *testing.T, host string) *big.Int {
	t.Helper()
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: a.roots}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*eventually)
	defer cancel()
	for {
		conn, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", gateway, listenHTTPS))
		if err == nil {
			defer conn.Close()
			return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", host, err)
		case <-time.After(50 * time.Millisecond): // nothing tells when Traefik has got a certificate
		}
	}
}
