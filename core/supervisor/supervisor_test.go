package supervisor_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

func TestEverythingElseIsTheAPIs(t *testing.T) {
	_, srv := server(t)
	for _, path := range []string{"/", "/version", "/v1-k3m", "/apis/v1-k3m/cacerts"} {
		if status, body := call(t, srv, get(t, srv.URL+path), nil); status != 200 || body != "the API" {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

func TestCACerts(t *testing.T) {
	authorities, srv := server(t)
	status, body := call(t, srv, get(t, srv.URL+wire.CACertsPath), nil)
	if status != 200 || pki.Hash([]byte(body)) != authorities.Server.Hash() {
		t.Errorf("%d %q", status, body)
	}
}

func TestUnknownRoute(t *testing.T) {
	_, srv := server(t)
	for _, r := range []*http.Request{get(t, srv.URL+"/v1-k3m/secrets"), get(t, srv.URL+wire.JoinPath)} {
		if status, body := call(t, srv, r, nil); status != 404 || !strings.Contains(body, "same k3m version") {
			t.Errorf("%s: %d %q", r.URL.Path, status, body)
		}
	}
}

func TestComponentCertificate(t *testing.T) {
	authorities, srv := server(t)
	node := issued(t, authorities.Client, pki.Client("system:node:node-1", "system:nodes"))
	status, body := call(t, srv, post(t, srv.URL+wire.ComponentPath, wire.ComponentRequest{ID: "cni.flannel", CSR: csr(t)}), node)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	var resp wire.ComponentResponse
	if err := json.Unmarshal([]byte(body), &resp); err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate([]byte(resp.Cert))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(cert.Subject.Organization) // DER sorts a set
	if cert.Subject.CommonName != "k3m:component:cni.flannel:node-1" || strings.Join(cert.Subject.Organization, " ") != "k3m:component:cni.flannel k3m:components" {
		t.Errorf("subject %v", cert.Subject)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: authorities.Client.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
}

func TestComponentServingCertificate(t *testing.T) {
	authorities, srv := server(t)
	node := issued(t, authorities.Client, pki.Client("system:node:node-1", "system:nodes"))
	request := func(id string) *http.Request {
		return post(t, srv.URL+wire.ComponentServingPath, wire.ComponentRequest{ID: id, CSR: csr(t)})
	}
	status, body := call(t, srv, request("addon.web"), node)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	var resp wire.ComponentResponse
	if err := json.Unmarshal([]byte(body), &resp); err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertificate([]byte(resp.Cert))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"web.kube-system", "web.kube-system.svc", "web.kube-system.svc.cluster.local", "too.web", "too.web.svc", "too.web.svc.cluster.local"}
	if !slices.Equal(cert.DNSNames, want) || len(cert.IPAddresses) > 0 {
		t.Errorf("names %q %v", cert.DNSNames, cert.IPAddresses)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: authorities.Server.Pool(), DNSName: "web.kube-system.svc", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: authorities.Server.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("it is a client certificate too")
	}
	for name, c := range map[string]struct {
		id     string
		cert   *tls.Certificate
		status int
		want   string
	}{
		"no certificate":                       {"addon.web", nil, 401, "must show its client certificate"},
		"a component of the node":              {"addon.web", issued(t, authorities.Client, pki.Client("k3m:component:addon.web:node-1", "k3m:components")), 403, "not a node's"},
		"a component that isn't selected":      {"dns.coredns", node, 403, "not selected"},
		"one that serves nothing":              {"cni.flannel", node, 403, "serves nothing"},
		"a server's component on another node": {"addon.server", node, 403, "not selected for node node-1"},
		"the API's name":                       {"addon.api", node, 403, "the API's alone"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := call(t, srv, request(c.id), c.cert)
			var e wire.Error
			if err := json.Unmarshal([]byte(body), &e); err != nil || status != c.status || !strings.Contains(e.Message, c.want) {
				t.Errorf("%d %q, %v; want %d %q", status, body, err, c.status, c.want)
			}
		})
	}
}

func TestComponentRefuses(t *testing.T) {
	authorities, srv := server(t)
	nodeLeaf := pki.Client("system:node:node-1", "system:nodes")
	node := issued(t, authorities.Client, nodeLeaf)
	good := wire.ComponentRequest{ID: "cni.flannel", CSR: csr(t)}
	serverLeaf := nodeLeaf
	serverLeaf.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}

	for name, c := range map[string]struct {
		cert   *tls.Certificate
		body   any
		status int
		want   string
	}{
		"no certificate":                         {nil, good, 401, "must show its client certificate"},
		"a self-signed node":                     {selfSigned(t, nodeLeaf), good, 401, "not this cluster's"},
		"a node that the server authority knows": {issued(t, authorities.Server, nodeLeaf), good, 401, "not this cluster's"},
		"a node of the request header authority": {issued(t, authorities.RequestHeader, nodeLeaf), good, 401, "not this cluster's"},
		"a kubelet's serving certificate":        {issued(t, authorities.Client, serverLeaf), good, 401, "not this cluster's"},
		"an administrator":                       {issued(t, authorities.Client, pki.Client("system:admin", "system:masters")), good, 403, "not a node's"},
		"a user who calls themselves a node":     {issued(t, authorities.Client, pki.Client("system:node:node-1")), good, 403, "not a node's"},
		"a component of the node":                {issued(t, authorities.Client, pki.Client("k3m:component:cni.flannel:node-1", "k3m:components")), good, 403, "not a node's"},
		"a component that isn't selected":        {node, wire.ComponentRequest{ID: "dns.coredns", CSR: csr(t)}, 403, "not selected"},
		"a server's component on another node":   {node, wire.ComponentRequest{ID: "addon.server", CSR: csr(t)}, 403, "not selected for node node-1"},
		"no request":                             {node, wire.ComponentRequest{ID: "cni.flannel"}, 400, "not in PEM"},
		"no JSON":                                {node, []byte("cni.flannel"), 400, "can't be read"},
		"an unknown field":                       {node, []byte(`{"id":"cni.flannel","groups":["system:masters"]}`), 400, "unknown field"},
		"two bodies":                             {node, []byte(`{"id":"x"}{}`), 400, "followed by something else"},
		"too much":                               {node, []byte(`{"id":"` + strings.Repeat("x", wire.MaxBody) + `"}`), 413, "larger than"},
		"a panic":                                {node, wire.ComponentRequest{ID: "addon.panics", CSR: csr(t)}, 500, "the server failed"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := call(t, srv, post(t, srv.URL+wire.ComponentPath, c.body), c.cert)
			var e wire.Error
			if err := json.Unmarshal([]byte(body), &e); err != nil || status != c.status || !strings.Contains(e.Message, c.want) {
				t.Errorf("%d %q, %v; want %d %q", status, body, err, c.status, c.want)
			}
		})
	}
}

func TestJoinRefuses(t *testing.T) {
	_, srv := server(t)
	request := func(change func(*wire.JoinRequest)) wire.JoinRequest {
		r := wire.JoinRequest{
			NodeName:          "node-1",
			NodePassword:      strings.Repeat("p", 32),
			NodeIPs:           []string{"192.0.2.1"},
			KubeletClientCSR:  csr(t),
			KubeletServingCSR: csr(t),
			KubeProxyCSR:      csr(t),
		}
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		user, secret string
		body         any
		status       int
		want         string
	}{
		"no token":             {"", "", request(func(*wire.JoinRequest) {}), 401, "the token is not this cluster's"},
		"a wrong token":        {"node", "wrong", request(func(*wire.JoinRequest) {}), 401, "the token is not this cluster's"},
		"a wrong user":         {"server", secret, request(func(*wire.JoinRequest) {}), 401, "the token is not this cluster's"},
		"a prefix of it":       {"node", secret[:8], request(func(*wire.JoinRequest) {}), 401, "the token is not this cluster's"},
		"no name":              {"node", secret, request(func(r *wire.JoinRequest) { r.NodeName = "" }), 400, "can't be a node's name"},
		"a name in capitals":   {"node", secret, request(func(r *wire.JoinRequest) { r.NodeName = "Node" }), 400, "can't be a node's name"},
		"a path as a name":     {"node", secret, request(func(r *wire.JoinRequest) { r.NodeName = "../x" }), 400, "can't be a node's name"},
		"a user in the name":   {"node", secret, request(func(r *wire.JoinRequest) { r.NodeName = "a:b" }), 400, "can't be a node's name"},
		"no password":          {"node", secret, request(func(r *wire.JoinRequest) { r.NodePassword = "" }), 400, "password must have"},
		"no address":           {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = nil }), 400, "1 to 16 addresses"},
		"too many addresses":   {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = make([]string, 17) }), 400, "1 to 16 addresses"},
		"a name as an address": {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = []string{"localhost"} }), 400, "can't be a node's address"},
		"a zone":               {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = []string{"fe80::1%eth0"} }), 400, "can't be a node's address"},
		"any address":          {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = []string{"0.0.0.0"} }), 400, "can't be a node's address"},
		"the API's name":       {"node", secret, request(func(r *wire.JoinRequest) { r.NodeName = "kubernetes" }), 403, "choose another --node-name"},
		"the server's address": {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = []string{"192.0.2.10"} }), 403, "choose another --node-ip"},
		"it in another form":   {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = []string{"::ffff:192.0.2.10"} }), 403, "choose another --node-ip"},
		"the Service's":        {"node", secret, request(func(r *wire.JoinRequest) { r.NodeIPs = []string{"192.0.2.1", "10.43.0.1"} }), 403, "choose another --node-ip"},
		"no request":           {"node", secret, request(func(r *wire.JoinRequest) { r.KubeProxyCSR = "" }), 400, "the kube-proxy's certificate request is not in PEM"},
		"no JSON":              {"node", secret, []byte("{"), 400, "can't be read"},
	} {
		t.Run(name, func(t *testing.T) {
			r := post(t, srv.URL+wire.JoinPath, c.body)
			if c.user != "" {
				r.SetBasicAuth(c.user, c.secret)
			}
			status, body := call(t, srv, r, nil)
			var e wire.Error
			if err := json.Unmarshal([]byte(body), &e); err != nil || status != c.status || !strings.Contains(e.Message, c.want) {
				t.Errorf("%d %q, %v; want %d %q", status, body, err, c.status, c.want)
			}
			if strings.Contains(body, secret) {
				t.Error("the answer tells the secret")
			}
		})
	}
}

// from sends a request as if it came from an address.
func from(srv *httptest.Server, remote string, r *http.Request) (int, string) {
	r.RemoteAddr = remote
	answer := httptest.NewRecorder()
	srv.Config.Handler.ServeHTTP(answer, r)
	return answer.Code, answer.Body.String()
}

// Before the server's own agent has joined, nobody has set the password of its name.
func TestJoinAsTheServerFromElsewhere(t *testing.T) {
	_, srv := server(t)
	for _, remote := range []string{"192.0.2.99:1234", "192.0.2.10:1234", "[2001:db8::1]:1234", "@"} {
		r := post(t, srv.URL+wire.JoinPath, wire.JoinRequest{
			NodeName: "server-1", NodePassword: strings.Repeat("p", 32), NodeIPs: []string{"192.0.2.10"},
			KubeletClientCSR: csr(t), KubeletServingCSR: csr(t), KubeProxyCSR: csr(t),
		})
		r.SetBasicAuth("node", secret)
		if status, body := from(srv, remote, r); status != 403 || !strings.Contains(body, "the server's own node: choose another --node-name") {
			t.Errorf("from %s: %d %s", remote, status, body)
		}
	}
}

func TestGuessesAreLimited(t *testing.T) {
	_, srv := server(t)
	limited := false
	for range 60 {
		r := post(t, srv.URL+wire.JoinPath, []byte("{}"))
		r.SetBasicAuth("node", "wrong")
		status, _ := call(t, srv, r, nil)
		if status == http.StatusTooManyRequests {
			limited = true
			break
		}
		if status != http.StatusUnauthorized {
			t.Fatalf("status %d", status)
		}
	}
	if !limited {
		t.Error("60 wrong tokens in a row, and no limit")
	}
	// The right token is no more than another guess now; from elsewhere it is as good as ever.
	for remote, want := range map[string]int{"127.0.0.1:1": http.StatusTooManyRequests, "192.0.2.1:1": http.StatusBadRequest} {
		r := post(t, srv.URL+wire.JoinPath, []byte("{}"))
		r.SetBasicAuth("node", secret)
		if status, body := from(srv, remote, r); status != want {
			t.Errorf("the right token from %s: %d %s", remote, status, body)
		}
	}
}
