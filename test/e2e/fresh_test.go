package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestFreshMachine starts k3m where nothing was unpacked before, and looks at what a
// cluster is before its users do anything.
func TestFreshMachine(t *testing.T) {
	h := lab.NewHost(t, "fresh")
	node := h.Start(t, "server")
	client, err := node.WaitReady(within(t, 90*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("there are no pods", func(t *testing.T) {
		pods, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(pods.Items) != 0 {
			t.Errorf("%d pods, %v", len(pods.Items), err)
		}
	})
	t.Run("there is no image but the one of sandboxes", func(t *testing.T) {
		out, err := h.K3m(within(t, 30*time.Second), "crictl", "images", "-o", "json").Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var list struct{ Images []struct{ RepoTags []string } }
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Images) != 1 || !slices.Equal(list.Images[0].RepoTags, []string{"registry.k3m.io/pause:1"}) {
			t.Errorf("crictl images lists %+v", list.Images)
		}
	})
	t.Run("a lone server elects no leader", func(t *testing.T) {
		leases, err := client.CoordinationV1().Leases("kube-system").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range leases.Items {
			if l.Name == "kube-scheduler" || l.Name == "kube-controller-manager" {
				t.Errorf("there is a lease %s", l.Name)
			}
		}
	})
	t.Run("the node token names the CA", func(t *testing.T) {
		token, err := os.ReadFile(filepath.Join(h.DataDir, "server", "node-token"))
		if err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(filepath.Join(h.DataDir, "server", "tls", "server-ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(ca)
		if want := "K10" + hex.EncodeToString(sum[:]) + "::node:"; !strings.HasPrefix(string(token), want) {
			t.Errorf("the token is %q, want %s…", token, want)
		}
	})
	t.Run("unpacked once", func(t *testing.T) {
		entries, err := os.ReadDir(filepath.Join(h.DataDir, "data"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), "tmp") {
				t.Errorf("%s is left of the unpacking", e.Name())
			}
		}
	})
}
