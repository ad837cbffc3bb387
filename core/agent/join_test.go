package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

func neverRuntime(ctx context.Context) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func TestJoin(t *testing.T) {
	s := newSupervisor(t)
	o := s.options(t)
	a := newTestAgent(t, o)
	id, err := a.join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if id.cluster.ClusterDomain != "cluster.local" {
		t.Errorf("cluster facts %+v", id.cluster)
	}
	config, err := clientcmd.BuildConfigFromFlags("", id.files.kubeletKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != s.URL {
		t.Errorf("kubelet asks %s, want %s", config.Host, s.URL)
	}
	pair, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := pair.Leaf.Subject.CommonName; got != "system:node:n1" {
		t.Errorf("kubelet is %s", got)
	}
	err = filepath.WalkDir(o.DataDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && mode(t, path) != 0o600 {
			t.Errorf("%s has mode %v, want 0600", path, mode(t, path))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if m := mode(t, filepath.Join(o.DataDir, "agent", "tls")); m != 0o700 {
		t.Errorf("agent/tls has mode %v, want 0700", m)
	}

	t.Run("again with new keys and the same password", func(t *testing.T) {
		key, _ := os.ReadFile(config.KeyFile)
		if _, err := newTestAgent(t, o).join(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again, _ := os.ReadFile(config.KeyFile); string(again) == string(key) {
			t.Error("the key was not renewed")
		}
	})
}

func TestJoinIsRefused(t *testing.T) {
	s := newSupervisor(t)
	first := newTestAgent(t, s.options(t))
	if _, err := first.join(t.Context()); err != nil {
		t.Fatal(err)
	}
	other, err := pki.Ensure(t.TempDir()+"/tls", false)
	if err != nil {
		t.Fatal(err)
	}
	o := s.options(t)
	o.NodeName = "n2"
	type intercept = func(w http.ResponseWriter, r *http.Request) bool
	for name, c := range map[string]struct {
		change    func(o *Options)
		intercept intercept
		want      string
	}{
		"not a token": {change: func(o *Options) { o.Token = "secret" }, want: "not of the form K10<hash>::node:<secret>"},
		"token of another cluster": {
			change: func(o *Options) { o.Token = "K10" + other.Server.Hash() + "::node:" + testSecret },
			want:   "not the one that the token names",
		},
		"wrong secret": {change: func(o *Options) { o.Token = strings.Replace(o.Token, testSecret, "a-good-guess", 1) }, want: "the token is wrong"},
		"name taken":   {change: func(o *Options) { o.NodeName = "n1" }, want: "another machine has the name n1"},
		"not a k3m server": {
			intercept: func(w http.ResponseWriter, r *http.Request) bool { http.NotFound(w, r); return true },
			want:      "is 127.0.0.1",
		},
		"redirect elsewhere": {
			intercept: func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, "https://192.0.2.1/", http.StatusTemporaryRedirect)
				return true
			},
			want: "307 Temporary Redirect",
		},
		"endless answer": {
			intercept: func(w http.ResponseWriter, r *http.Request) bool {
				chunk := make([]byte, 64<<10)
				for range wire.MaxBody/len(chunk) + 1 {
					if _, err := w.Write(chunk); err != nil {
						break
					}
				}
				return true
			},
			want: "longer than 1048576 bytes",
		},
		"answer that is not JSON": {
			intercept: func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == wire.JoinPath {
					_, _ = io.WriteString(w, "<html>")
					return true
				}
				return false
			},
			want: "its answer can't be read",
		},
		"certificates of other keys": {
			intercept: func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != wire.JoinPath {
					return false
				}
				cert, _, _ := s.pki.Client.Issue(pki.Client("system:node:n2", "system:nodes"))
				_, _ = io.WriteString(w, `{"kubeletClientCert":`+quote(cert)+`,"clientCA":`+quote(s.pki.Client.PEM)+`}`)
				return true
			},
			want: "bad kubelet client certificate",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := o
			o.DataDir = t.TempDir()
			if c.change != nil {
				c.change(&o)
			}
			s.mu.Lock()
			s.intercept = c.intercept
			s.mu.Unlock()
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			_, err := newTestAgent(t, o).join(ctx)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("join: %v; want an error that says %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), testSecret) {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

// A token goes to nobody but a server of the token's CA: here one that has the right CA's
// certificate to show, and not its key.
func TestTokenIsNotSentToImpostor(t *testing.T) {
	s := newSupervisor(t)
	other, err := pki.Ensure(t.TempDir()+"/tls", false)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := other.Server.Issue(pki.Serving("k3m", pki.SANs{IPs: s.options(t).NodeIPs}))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(listen(t, "127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{pair}})
	asked := make(chan struct{}, 100)
	impostor := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); ok {
			t.Error("the impostor got the token")
		}
		_, _ = w.Write(s.pki.Server.PEM)
		asked <- struct{}{}
	})}
	go func() { _ = impostor.Serve(l) }()
	t.Cleanup(func() { _ = impostor.Close() })
	o := s.options(t)
	o.ServerURL = "https://" + l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := newTestAgent(t, o).join(ctx); done <- err }()
	<-asked
	<-asked // it came back, and asked for the CA again
	cancel()
	if err := <-done; err == nil {
		t.Error("joined an impostor")
	}
}

func TestJoinWaitsForTheServer(t *testing.T) {
	t.Run("that is not up yet", func(t *testing.T) {
		s := newSupervisor(t)
		addr := freeAddr(t)
		o := s.options(t)
		o.ServerURL = "https://" + addr
		a := newTestAgent(t, o)
		done := make(chan error, 1)
		go func() { _, err := a.join(t.Context()); done <- err }()
		l := listen(t, addr)
		server := &http.Server{Handler: s.Config.Handler, TLSConfig: s.TLS, ErrorLog: s.Config.ErrorLog}
		go func() { _ = server.ServeTLS(l, "", "") }()
		defer func() { _ = server.Close() }()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("that answers 503 first", func(t *testing.T) {
		s := newSupervisor(t)
		n := 0
		s.intercept = func(w http.ResponseWriter, r *http.Request) bool {
			n++
			if n < 3 {
				fail(w, http.StatusServiceUnavailable, "starting")
				return true
			}
			return false
		}
		if _, err := newTestAgent(t, s.options(t)).join(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("that says when it is up", func(t *testing.T) {
		s := newSupervisor(t)
		up := make(chan struct{})
		o := s.options(t)
		o.ServerUp = up
		s.intercept = func(http.ResponseWriter, *http.Request) bool {
			select {
			case <-up:
			default:
				t.Error("asked before the server was up")
			}
			return false
		}
		done := make(chan error, 1)
		go func() { _, err := newTestAgent(t, o).join(t.Context()); done <- err }()
		close(up)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("until it is told to stop", func(t *testing.T) {
		s := newSupervisor(t)
		o := s.options(t)
		o.ServerURL = "https://" + freeAddr(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := newTestAgent(t, o).join(ctx); done <- err }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("join: %v", err)
		}
	})
}

func TestNodePassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent", "node-password")
	first, err := nodePassword(path)
	if err != nil || len(first) != 32 {
		t.Fatalf("%q, %v", first, err)
	}
	if m := mode(t, path); m != 0o600 {
		t.Errorf("mode %v", m)
	}
	if again, err := nodePassword(path); err != nil || again != first {
		t.Errorf("%q, %v; want the first one", again, err)
	}
	if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nodePassword(path); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("an empty file: %v", err)
	}
}

// FuzzJoinAnswer reads what somebody who took a server's place, and its key, could answer.
func FuzzJoinAnswer(f *testing.F) {
	authority, err := pki.Ensure(f.TempDir()+"/tls", false)
	if err != nil {
		f.Fatal(err)
	}
	o := testOptions()
	o.DataDir = f.TempDir()
	var k keys
	var certs []string
	for _, key := range []*[]byte{&k.kubeletClient, &k.kubeletServing, &k.proxy} {
		csr, keyPEM, err := pki.NewRequest()
		if err != nil {
			f.Fatal(err)
		}
		public, err := pki.RequestedKey(csr)
		if err != nil {
			f.Fatal(err)
		}
		cert, err := authority.Client.Sign(pki.Client("system:node:n1"), public)
		if err != nil {
			f.Fatal(err)
		}
		*key, certs = keyPEM, append(certs, quote(cert))
	}
	ca := quote(authority.Client.PEM)
	f.Add([]byte(`{"clientCA":` + ca + `,"kubeletClientCert":` + certs[0] + `,"kubeletServingCert":` + certs[1] + `,"kubeProxyCert":` + certs[2] + `}`))
	f.Add([]byte(`{"clientCA":"","kubeletClientCert":"-----BEGIN CERTIFICATE-----"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var resp wire.JoinResponse
		if json.Unmarshal(body, &resp) != nil {
			return
		}
		id, err := newIdentity(o, authority.Server.PEM, k, &resp)
		if err == nil && id.kubelet.Leaf.Subject.CommonName != "system:node:n1" {
			t.Errorf("took an identity of %s", id.kubelet.Leaf.Subject)
		}
	})
}
