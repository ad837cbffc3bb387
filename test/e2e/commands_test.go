package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/test/images"
)

// version is what the distribution stamps.
const version = "v1.37.2+k3m1"

func TestVersion(t *testing.T) {
	t.Parallel()
	s := play(t)
	for _, c := range []struct {
		name string
		got  string
	}{
		{"k3m version", s.k3m("version")},
		{"kubectl version", s.kubectl("version")},
		{"the node", s.kubectl("get", "node", s.node.Name, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}")},
	} {
		if !strings.Contains(c.got, version) {
			t.Errorf("%s says %q, not %s", c.name, c.got, version)
		}
	}
	if text := s.kubectl("version"); strings.Count(text, version) != 2 {
		t.Errorf("kubectl version says %q", text)
	}
}

// k3m runs a sub-command on the node and gives what it printed.
func (s *scene) k3m(args ...string) string {
	s.Helper()
	out, err := s.node.Host.K3m(within(s.T, 30*time.Second), args...).Output()
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// TestImages has the ways in which an image gets to a running node.
func TestImages(t *testing.T) {
	t.Parallel()
	s := play(t)
	pinned := func(t *testing.T) map[string]bool {
		t.Helper()
		var list []struct {
			Name, Tag string
			Pinned    bool
		}
		if err := json.Unmarshal([]byte(s.k3m("image", "list", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		all := map[string]bool{}
		for _, image := range list {
			all[image.Name+":"+image.Tag] = image.Pinned
		}
		return all
	}
	t.Run("preloaded and pause are listed, and pinned", func(t *testing.T) {
		all := pinned(t)
		for _, want := range []string{images.Echo, images.Echo2, images.Busybox, "registry.k3m.io/pause:1"} {
			if !all[want] {
				t.Errorf("%s is not pinned, or not there, in %v", want, all)
			}
		}
	})
	t.Run("import", func(t *testing.T) {
		s.k3m("image", "import", retagged(t, "imported"))
		if all := pinned(t); !all["registry.k3m.test/imported:1"] { // its bytes are Busybox's, which is pinned
			t.Errorf("not in %v", all)
		}
	})
	t.Run("an archive that arrives is imported", func(t *testing.T) {
		dir := filepath.Join(s.node.Host.DataDir, "agent", "images")
		moved := filepath.Join(dir, "arrived.tar")
		if err := os.Rename(retagged(t, "arrived"), moved); err != nil {
			t.Fatal(err)
		}
		s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: arrived}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'registry.k3m.test/arrived:1', imagePullPolicy: IfNotPresent, command: [sleep, '3600']}]}\n")
		s.pod("arrived")
	})
	t.Run("ctr and crictl", func(t *testing.T) {
		if out := s.k3m("ctr", "images", "list", "-q"); !strings.Contains(out, images.Echo) {
			t.Errorf("ctr says %q", out)
		}
		var pods struct {
			Items []struct {
				Metadata struct{ Name string }
			}
		}
		if err := json.Unmarshal([]byte(s.k3m("crictl", "pods", "-o", "json")), &pods); err != nil || len(pods.Items) == 0 {
			t.Errorf("crictl sees %d pods, %v", len(pods.Items), err)
		}
	})
}

// retagged is the busybox archive with another name in it, on the disk of the images
// directory.
func retagged(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(lab.Dir, name+".tar")
	if err := images.BuildBusybox(t.Context(), path, "registry.k3m.test/"+name+":1"); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNoNode asks for a node where there is none.
func TestNoNode(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "nonode")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"component", "list"}, {"image", "list"}, {"crictl", "ps"}, {"ctr", "containers", "list"}, {"kubectl", "get", "nodes"}, {"uninstall", "--yes"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			out, err := h.K3m(within(t, 30*time.Second), args...).CombinedOutput()
			if err == nil {
				t.Fatalf("it went well: %s", out)
			}
			sentence(t, out)
		})
	}
}
