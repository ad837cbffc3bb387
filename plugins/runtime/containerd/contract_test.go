package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

// TestContract runs the kit that every plugin must pass; containerd really starts.
func TestContract(t *testing.T) {
	n := newNode(t)
	record := sdk.Describe(New())
	plugintest.Run(t, plugintest.Options{
		New:        New,
		Record:     &record,
		Executable: buildPlugin(t),
		Facts:      n.facts,
		Config:     json.RawMessage(`{"snapshotter": "overlayfs"}`),
		BadConfigs: []plugintest.BadConfig{
			{Name: "an unknown snapshotter", Config: json.RawMessage(`{"snapshotter": "zfs"}`), Path: "snapshotter"},
			{Name: "an unknown key", Config: json.RawMessage(`{"snapshoter": "native"}`), Path: "snapshoter"},
		},
		WhileReady: func(t *testing.T, _ sdk.Facts) {
			pods, _ := n.cri()
			if _, err := pods.Version(context.Background(), &runtime.VersionRequest{}); err != nil {
				t.Error(err)
			}
		},
	})
}

// TestCommands runs the k3m sub-commands as k3m does: the plugin's executable, with the
// node in its environment.
func TestCommands(t *testing.T) {
	n := newNode(t)
	n.start()
	executable := buildPlugin(t)
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	writeImage(t, archive, busyboxImage(t, testBusybox))
	paths := sdk.CommandPaths{
		DataDir: filepath.Dir(n.facts.Paths.AgentDir),
		RunDir:  n.facts.Paths.RunDir,
		BinDir:  n.facts.Paths.BinDir,
	}
	for _, c := range []struct {
		name    string
		command string
		args    []string
		want    string // in standard output
		refused string // in standard error, with exit code 1
	}{
		{name: "image import", command: "image", args: []string{"import", archive}, want: testBusybox + "\n"},
		{name: "image list", command: "image", args: []string{"list"}, want: "registry.test/busybox   1 "},
		{name: "image list as JSON", command: "image", args: []string{"list", "-o", "json"}, want: `"pinned": true`},
		{name: "image list in an unknown format", command: "image", args: []string{"list", "-o", "xml"}, refused: `--output "xml" is unknown: want table, json or yaml`},
		{name: "image without a word", command: "image", want: "Usage:"},
		{name: "image with an unknown word", command: "image", args: []string{"pull"}, refused: `unknown command "pull"`},
		{name: "image import without a file", command: "image", args: []string{"import"}, refused: "requires at least 1 arg"},
		{name: "image import of what is not there", command: "image", args: []string{"import", "/nowhere.tar"}, refused: "import /nowhere.tar: there is no such file"},
		{name: "ctr uses Kubernetes' namespace", command: "ctr", args: []string{"images", "list", "-q"}, want: testPause},
		{name: "ctr in another namespace", command: "ctr", args: []string{"-n", "other", "images", "list"}, want: "REF"},
		{name: "crictl", command: "crictl", args: []string{"images", "-q"}, want: "sha256:"},
		{name: "crictl keeps the user's flags", command: "crictl", args: []string{"--runtime-endpoint=unix:///nowhere.sock", "--timeout=1s", "version"}, refused: "nowhere.sock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), executable, c.args...)
			cmd.Env = append(os.Environ(), client.CommandEnv(c.command, paths)...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if !strings.Contains(stdout.String(), c.want) || !strings.Contains(stderr.String(), c.refused) {
				t.Errorf("standard output:\n%s\nstandard error:\n%s", &stdout, &stderr)
			}
			if strings.Contains(stderr.String(), "crictl.yaml") {
				t.Errorf("it talks about a file that nobody wants: %s", &stderr)
			}
			if (err != nil) != (c.refused != "") {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}
