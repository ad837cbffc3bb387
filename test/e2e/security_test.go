package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/core/supervisor/wire"
	"github.com/k3m-io/k3m/test/harness"
)

// selfSigned is a certificate that a stranger made for themselves.
func selfSigned(t *testing.T, name string, groups ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// request sends a request from outside of the node, with a client certificate or none.
// It doesn't look at the server's certificate: this is about what the server lets in.
func request(t *testing.T, method, url string, body []byte, certs ...tls.Certificate) (int, string) {
	t.Helper()
	client := lab.Switch.HTTP()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true, Certificates: certs}
	req, err := http.NewRequestWithContext(within(t, 10*time.Second), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error() // a refused handshake is a refusal
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// TestStrangersAreRefused asks as nobody and as a self-made node.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	s := play(t)
	api := fmt.Sprintf("https://%s:6443", s.node.Host.Addr)
	kubelet := fmt.Sprintf("https://%s:10250", s.node.Host.Addr)
	node := selfSigned(t, "system:node:"+s.node.Name, "system:nodes")
	admin := selfSigned(t, "admin", "system:masters")
	component := []byte(`{"id":"cni.flannel","csr":""}`)

	for _, c := range []struct {
		name, method, url string
		body              []byte
		certs             []tls.Certificate
		want              []int
	}{
		{"anonymous: livez", "GET", api + "/livez", nil, nil, []int{200}},
		{"anonymous: readyz", "GET", api + "/readyz", nil, nil, []int{200}},
		{"anonymous: the CA certificates", "GET", api + wire.CACertsPath, nil, nil, []int{200}},
		{"anonymous: version", "GET", api + "/version", nil, nil, []int{401, 403}},
		{"anonymous: discovery", "GET", api + "/api", nil, nil, []int{401, 403}},
		{"anonymous: nodes", "GET", api + "/api/v1/nodes", nil, nil, []int{401, 403}},
		{"anonymous: metrics", "GET", api + "/metrics", nil, nil, []int{401, 403}},
		{"anonymous: join", "POST", api + wire.JoinPath, []byte("{}"), nil, []int{401, 403}},
		{"anonymous: component", "POST", api + wire.ComponentPath, component, nil, []int{401, 403}},
		{"self-signed node: its node", "GET", api + "/api/v1/nodes/" + s.node.Name, nil, []tls.Certificate{node}, []int{0, 401}},
		{"self-signed node: component", "POST", api + wire.ComponentPath, component, []tls.Certificate{node}, []int{0, 401, 403}},
		{"self-signed node: join", "POST", api + wire.JoinPath, []byte("{}"), []tls.Certificate{node}, []int{0, 401, 403}},
		{"self-signed administrator: secrets", "GET", api + "/api/v1/secrets", nil, []tls.Certificate{admin}, []int{0, 401}},
		{"kubelet, anonymous: pods", "GET", kubelet + "/pods", nil, nil, []int{401, 403}},
		{"kubelet, anonymous: run", "POST", kubelet + "/run/default/x/y?cmd=id", nil, nil, []int{401, 403}},
		{"kubelet, self-signed administrator", "GET", kubelet + "/pods", nil, []tls.Certificate{admin}, []int{0, 401}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body := request(t, c.method, c.url, c.body, c.certs...)
			if !slices.Contains(c.want, code) {
				t.Errorf("status %d, want one of %v: %s", code, c.want, body)
			}
		})
	}
}

// TestTokenIsNotReadable gives a token in the two ways that other users could see.
func TestTokenIsNotReadable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, secret string }{{"command line", "tok-n-of-the-command-line"}, {"environment", "tok-n-of-the-environment"}} {
		t.Run(c.name, func(t *testing.T) {
			h := lab.NewHost(t, "token")
			var node *harness.Node
			if c.name == "environment" {
				h.Env = []string{"K3M_TOKEN=" + c.secret}
				node = h.Serve(t)
			} else {
				node = h.Serve(t, "--token", c.secret)
			}
			if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
				t.Fatal(err)
			}
			token, err := os.ReadFile(filepath.Join(h.DataDir, "server", "node-token"))
			if err != nil || !strings.Contains(string(token), c.secret) {
				t.Errorf("the node token is %q, %v", token, err)
			}
			for _, p := range mustProcesses(t, h) {
				for _, file := range []string{"cmdline", "environ"} {
					text, _ := os.ReadFile(h.Path(fmt.Sprintf("/proc/%d/%s", p.Pid, file)))
					if bytes.Contains(text, []byte(c.secret)) {
						t.Errorf("the token is in /proc/%d/%s of %s", p.Pid, file, p.Cmdline)
					}
				}
			}
			h.Env = nil
		})
	}
}

// TestPluginPrivileges reads what the kernel says of the plugins' processes.
func TestPluginPrivileges(t *testing.T) {
	t.Parallel()
	s := play(t)
	all, err := s.node.Components(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	const netAdmin, sysAdmin = 1 << 12, 1 << 21
	flannel := procStatus(t, s.node.Host, all["cni.flannel"].Pid)
	if flannel["NoNewPrivs"] != "1" {
		t.Errorf("cni.flannel: NoNewPrivs is %q", flannel["NoNewPrivs"])
	}
	for _, set := range []string{"CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"} {
		caps, err := strconv.ParseUint(flannel[set], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if set == "CapEff" && caps&netAdmin == 0 {
			t.Errorf("cni.flannel has no CAP_NET_ADMIN in %s %x", set, caps)
		}
		if caps&sysAdmin != 0 || caps&^capabilityMask(all["cni.flannel"].Capabilities) != 0 {
			t.Errorf("cni.flannel has %s %x, but asks for %v", set, caps, all["cni.flannel"].Capabilities)
		}
	}
	for id, c := range all {
		st := procStatus(t, s.node.Host, c.Pid)
		if uid := strings.Fields(st["Uid"]); len(uid) < 2 || uid[1] != strconv.Itoa(c.UID) {
			t.Errorf("%s runs as %q, its status says %d", id, st["Uid"], c.UID)
		}
		environ, err := os.ReadFile(s.node.Host.Path(fmt.Sprintf("/proc/%d/environ", c.Pid)))
		if err != nil {
			t.Error(err)
		}
		for kv := range strings.SplitSeq(string(environ), "\x00") {
			if strings.HasPrefix(kv, "ONLY_FOR_THE_CORE=") {
				t.Errorf("%s has the core's environment: %s", id, kv)
			}
		}
		group, err := os.ReadFile(s.node.Host.Path(fmt.Sprintf("/proc/%d/cgroup", c.Pid)))
		if err != nil || !strings.Contains(string(group), "/"+s.node.Host.Cgroup()+"/"+id) {
			t.Errorf("%s is not in its cgroup: %s %v", id, group, err)
		}
	}
	t.Run("shims are not in the runtime's cgroup", func(t *testing.T) {
		s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}\n")
		s.pod("p")
		shims := 0
		for _, p := range mustProcesses(t, s.node.Host) {
			if !strings.Contains(p.Cmdline, "containerd-shim") {
				continue
			}
			shims++
			group, _ := os.ReadFile(s.node.Host.Path(fmt.Sprintf("/proc/%d/cgroup", p.Pid)))
			if strings.Contains(string(group), "runtime.containerd") {
				t.Errorf("shim %d is in %s", p.Pid, group)
			}
		}
		if shims == 0 {
			t.Error("there is no shim")
		}
	})
}

func capabilityMask(names []string) (mask uint64) {
	for number, name := range []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
		"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
	} {
		if slices.Contains(names, "CAP_"+name) {
			mask |= 1 << number
		}
	}
	return mask
}

func procStatus(t *testing.T, h *harness.Host, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(h.Path(fmt.Sprintf("/proc/%d/status", pid)))
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	return status
}

// TestListeningSockets sees that a node listens only where the manual says.
func TestListeningSockets(t *testing.T) {
	// Not parallel: other tests have pods that listen on the node.
	s := play(t)
	want := map[string]bool{
		"tcp *:6443": true, "tcp *:10250": true, // API and supervisor, kubelet
		"udp *:8472":       true,                           // vxlan
		"udp 10.42.0.1:53": true, "tcp 10.42.0.1:53": true, // dns.coredns, for pods
		"tcp 10.42.0.1:10251": true,                             // metrics-server, for the API server
		"tcp 10.42.0.1:8000":  true, "tcp 10.42.0.1:8443": true, // ingress.traefik, for its Service
	}
	// kube-proxy answers load balancers' health checks of a Service whose traffic stays on the node.
	s.kubectl("-n", "kube-system", "wait", "--for=create", "service/traefik", "--timeout=60s")
	check := s.kubectl("-n", "kube-system", "get", "service", "traefik", "-o", "jsonpath={.spec.healthCheckNodePort}")
	want[fmt.Sprintf("tcp %s:%s", s.node.Host.Addr, strings.TrimSpace(check))] = true
	for _, l := range s.node.Host.Listening(t) {
		if l.Loopback || want[l.String()] || want[l.AnyAddress()] {
			continue
		}
		t.Errorf("%s listens on %s", l.Process, l)
	}
}

// TestSecretFiles looks for files that others could read.
func TestSecretFiles(t *testing.T) {
	t.Parallel()
	s := play(t)
	h := s.node.Host
	check := func(path string) {
		st, err := os.Lstat(path)
		if err != nil {
			t.Error(err)
		} else if st.Mode().Perm()&0o077 != 0 && reachable(path) {
			t.Errorf("%s has mode %o", path, st.Mode().Perm())
		}
	}
	check(h.Kubeconfig)
	keys := 0
	for _, top := range []string{h.DataDir, h.RunDir} {
		harness.Walk(top, func(path string, e fs.DirEntry) error {
			if e.IsDir() {
				// Others' files: images, containers' file systems, what pods mount.
				switch strings.TrimPrefix(path, h.DataDir) {
				case "/data", "/agent/containerd", "/agent/kubelet/pods", "/agent/images":
					return fs.SkipDir
				}
				return nil
			}
			if info, err := e.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if bytes.Contains(text, []byte("PRIVATE KEY-----")) || bytes.Contains(text, []byte("::node:")) ||
				strings.Contains(path, "/server/db/") || strings.HasSuffix(path, ".kubeconfig") {
				keys++
				check(path)
			}
			return nil
		})
	}
	if keys < 8 {
		t.Errorf("only %d files with secrets were found; the test looks in the wrong place", keys)
	}
}

// reachable tells whether other users may walk down to a file.
func reachable(path string) bool {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode().Perm()&0o001 == 0 {
			return false
		}
	}
	return true
}
