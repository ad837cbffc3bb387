package kit

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// TestRefusedCredentials: 401 means that the component is to end, 403 is an answer like others.
func TestRefusedCredentials(t *testing.T) {
	var status atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	defer api.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c"}}],
		"clusters": [{"name": "c", "cluster": {"server": "` + api.URL + `"}}]}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int32
	clients, err := NewClients(kubeconfig, "ingress.test", "node", func() { refused.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		want   int32
	}{{http.StatusForbidden, 0}, {http.StatusUnauthorized, 1}} {
		status.Store(int32(c.status))
		if err := clients.Networking.Get().Resource("ingresses").Do(t.Context()).Error(); err == nil {
			t.Errorf("%d is no error", c.status)
		}
		if got := refused.Load(); got != c.want {
			t.Errorf("%d: refused was called %d times, not %d", c.status, got, c.want)
		}
	}
}
