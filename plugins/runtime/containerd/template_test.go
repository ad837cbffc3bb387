package containerd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/k3m-io/k3m/registries"
	"github.com/k3m-io/k3m/sdk"
)

// customRuntime adds a runtime handler, as an operator of k3s would write it.
const customRuntime = `{{ template "base" . }}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'custom']
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.'custom'.options]
  BinaryName = "{{ .NodeConfig.Containerd.Root }}/bin/runc"
  SystemdCgroup = {{ .SystemdCgroup }}
`

func TestTemplate(t *testing.T) {
	n := newNode(t)
	dir := filepath.Dir(n.registries)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.toml.tmpl"), []byte(customRuntime), 0o644); err != nil {
		t.Fatal(err)
	}
	n.start()
	pods, _ := n.cri()
	// It is one of this node's: Cleanup, which ends each test, finds it.
	_, err := pods.RunPodSandbox(context.Background(), &runtime.RunPodSandboxRequest{Config: n.sandboxConfig(t, "custom"), RuntimeHandler: "custom"})
	if err != nil {
		t.Errorf("a sandbox with the template's runtime: %v", err)
	}
	_, err = pods.RunPodSandbox(context.Background(), &runtime.RunPodSandboxRequest{Config: n.sandboxConfig(t, "other"), RuntimeHandler: "other"})
	if err == nil {
		t.Error("a sandbox with a runtime that nobody configured was made")
	}
	info, err := os.Stat(filepath.Join(dir, configFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("what is in force: %v, %v", info, err)
	}
}

func TestTemplateMistakes(t *testing.T) {
	registerBridge()
	for name, c := range map[string]struct {
		file, text string
		want       string // of the error, with FILE for the template and DIR for its directory
		log        string
	}{
		"the base alone":            {text: `{{ template "base" . }}`},
		"k3s' other name":           {file: "config-v3.toml.tmpl", text: `{{ template "bass" . }}`, want: `FILE:1:12: executing "FILE" at <{{template "bass" .}}>: template "bass" not defined`},
		"no template":               {text: "\n{{ if }}", want: "FILE:2: missing value for if"},
		"an unknown variable":       {text: "\n\n{{ .NodeConfig.Sandbox }}", want: `FILE:3:14: executing "FILE" at <.NodeConfig.Sandbox>: can't evaluate field Sandbox`},
		"without end":               {text: `{{ range $i := 1000000 }}{{ template "base" $ }}{{ end }}`, want: "it gives more than"},
		"no TOML":                   {text: "{{ template \"base\" . }}\n[plugins", want: "DIR/config.toml:LAST:8: expected"},
		"a table that stands twice": {text: "{{ template \"base\" . }}\n[plugins.'io.containerd.gc.v1.scheduler']\nx = 1", want: "DIR/config.toml:"},
		"an unknown key":            {text: "sate = \"/x\"\n{{ template \"base\" . }}", want: `DIR/config.toml:2:1: containerd knows no key "sate"`},
		"without the base":          {text: "version = 3\nroot = \"/var/lib/containerd\"", want: `root is "/var/lib/containerd", and k3m needs "`},
		"version 2": {text: "{{ template \"base\" . }}\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nx = 1",
			want: "is of version 2 of the configuration; write it below io.containerd.cri.v1.runtime"},
		"a plugin that is not there": {text: "{{ template \"base\" . }}\n[plugins.'io.containerd.internal.v1.opt']\npath = '/x'", log: "plugin=io.containerd.internal.v1.opt"},
		"too large":                  {text: strings.Repeat("# ", maxTemplate), want: "is larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t.TempDir(), "/run/k3m")
			dir := filepath.Dir(l.registries)
			if c.file == "" {
				c.file = "config.toml.tmpl"
			}
			file := filepath.Join(dir, c.file)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			s := settings{layout: l, snapshotter: overlayfs, sandbox: sandboxImage{name: testPause, pinned: testPause}}
			var log bytes.Buffer
			config, err := s.render(t.Context(), s.variables(Config{}, sdk.Facts{}, &registries.Registries{}),
				hclog.New(&hclog.LoggerOptions{Output: &log}))
			text, _ := os.ReadFile(filepath.Join(dir, configFile))
			want := strings.NewReplacer("FILE", file, "DIR", dir, "LAST", lastLine(text)).Replace(c.want)
			if c.want == "" && (err != nil || config.State != l.state) || c.want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("error is %v, want %q", err, want)
			}
			if !strings.Contains(log.String(), c.log) {
				t.Errorf("the log is\n%s", &log)
			}
		})
	}
}

func lastLine(text []byte) string {
	return fmt.Sprint(strings.Count(string(text), "\n") + 1)
}
