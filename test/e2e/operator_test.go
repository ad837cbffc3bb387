package e2e

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// TestCheck asks a fresh host, one whose port is taken, and one where a server runs.
func TestCheck(t *testing.T) {
	t.Parallel()
	s := play(t)
	h := lab.NewHost(t, "check")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	words := append([]string{"check"}, h.Flags()...)
	before := changes(t, h)
	good(t, h, words, "a node will run here: 0 failures", "packet filter", "nftables works", "overlayfs")
	if now := changes(t, h); len(now.Minus(before)) > 0 {
		t.Errorf("it left %v", now.Minus(before))
	}

	holder := h.Command(within(t, 60*time.Second), "/bin/busybox", "nc", "-l", "-p", "6443")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
	(&scene{T: t, node: &harness.Node{Host: h}}).listening(6443)
	bad(t, h, 1, words, "the API wants TCP port 6443, which busybox (pid ", "a node will not run here")
	out, _ := command(t, h, append(words, "-o", "json")...)
	var report struct {
		Runs     bool
		Failures int
		Findings []struct{ Check, Level, Found, Fix string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Runs || report.Failures != 1 {
		t.Errorf("%v: %s", err, out)
	}
	bad(t, h, 2, append(words, "--enable=nosuch"), "nosuch")

	running := append([]string{"check"}, s.node.Host.Flags()...)
	good(t, s.node.Host, running, "nobody but this node has those that it uses", "0 failures")
}

// TestSupportBundle plants secrets wherever there is a place for them, and looks for them in the
// bundle.
func TestSupportBundle(t *testing.T) {
	t.Parallel()
	const (
		token    = "join-token-swordfish"
		inFile   = "file-swordfish-1"
		inDropIn = "dropin-swordfish-2"
		registry = "registry-swordfish-3"
		inPod    = "pod-swordfish-4"
		short    = "s3cr3t"
	)
	h := lab.NewHost(t, "bundle")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(h.ConfigFile, "# once it was "+inFile+"\ntoken: "+token+"\ndebug: false\n")
	write(filepath.Join(h.ConfigFile+".d", "50-registry.yaml"), "# "+inDropIn+"\nkubelet-arg: [v=0]\n")
	write(filepath.Join(filepath.Dir(h.ConfigFile), "registries.yaml"), "configs: {r.example: {auth: {username: bob, password: "+registry+"}}}\n")
	node := h.Serve(t)
	client, err := node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: "kube-system"}
	s.kubectl("create", "secret", "generic", "planted", "--from-literal=anything="+plantedSecret, "--from-literal=short="+short)
	// A pod that never runs: its image is not there. What is said of it has the secrets in it.
	s.apply(`
apiVersion: v1
kind: Pod
metadata:
  name: leaky
  annotations: {example.org/note: ` + inPod + `}
spec:
  containers:
  - {name: c, image: 'registry.k3m.test/nosuch:1', imagePullPolicy: Never, command: [run, --with, ` + inPod + `], args: [` + inPod + `], env: [{name: A, value: ` + inPod + `}]}
`)
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: "leaky.1", Namespace: s.ns},
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "leaky", Namespace: s.ns},
		Reason:         "Leak", Type: "Warning", FirstTimestamp: now, LastTimestamp: now,
		Message: "could not log in with " + plantedSecret + " or " + short + " or https://bob:" + registry + "@r.example or " + token,
	}
	if _, err := client.CoreV1().Events(s.ns).Create(t.Context(), event, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.podWhen("leaky", func(p *corev1.Pod) bool { return strings.Contains(podStory(p), "ErrImageNeverPull") })

	secrets := []string{token, inFile, inDropIn, registry, inPod, plantedSecret, short, "PRIVATE KEY"}
	for _, name := range []string{"server/node-token", "agent/node-password", "server/tls/server-ca.key"} {
		text, err := os.ReadFile(filepath.Join(h.DataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); len(line) > 8 {
				secrets = append(secrets, line)
			}
		}
	}
	words := append(append([]string{"support-bundle"}, h.Flags()...), "--file", filepath.Join(h.Dir, "1.tar.gz"))
	good(t, h, words, "wrote "+filepath.Join(h.Dir, "1.tar.gz"), "secrets were taken out")
	content := unpackBundle(t, filepath.Join(h.Dir, "1.tar.gz"))
	for name, text := range content {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
	}
	for name, want := range map[string]string{
		"version.txt": version, "status.txt": "all is well", "check.txt": "a node will run here", "status.json": `"well": true`,
		"components.json": "cni.flannel", "usage.json": "cni.flannel", "logs/core.log": "node ready", "logs/cni.flannel.log": "cni.flannel",
		"cluster/nodes.yaml": node.Name, "cluster/events.yaml": "could not log in with [redacted]", "cluster/pods.yaml": "nosuch:1", "cluster/components.yaml": "dns.coredns",
		"config/config.yaml": "debug: false", "config/config.yaml.d/50-registry.yaml": "v=0", "config/registries.yaml": "r.example",
		"host/ip-details-address.txt": "cni0", "host/nft-list-ruleset.txt": "kube-proxy", "host/processes.txt": "k3m",
	} {
		if !strings.Contains(content[name], want) {
			t.Errorf("%s does not say %q: %.300s", name, want, content[name])
		}
	}
	if failed := content["errors.txt"]; failed != "" {
		t.Errorf("could not be got: %s", failed)
	}
	bad(t, h, 1, words, "file exists")

	// And of a server that does not run, with a configuration that is broken.
	node.Stop(t)
	write(h.ConfigFile, "token: "+token+"\nnosuch: 1\n")
	words[len(words)-1] = filepath.Join(h.Dir, "2.tar.gz")
	good(t, h, words, "wrote")
	content = unpackBundle(t, filepath.Join(h.Dir, "2.tar.gz"))
	if !strings.Contains(content["errors.txt"], "nosuch") || !strings.Contains(content["errors.txt"], "no server answers") {
		t.Errorf("its errors are %q", content["errors.txt"])
	}
	for name, text := range content {
		if strings.Contains(text, token) {
			t.Errorf("%s holds the token", name)
		}
	}
	write(h.ConfigFile, "") // for the removal
}

// unpackBundle reads a support bundle, whose files are in one folder.
func unpackBundle(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 || info.Size() > 20<<20 {
		t.Errorf("it has the mode %v and %d bytes, %v", info.Mode(), info.Size(), err)
	}
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return content
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		content[name] = string(text)
	}
}

// TestCompletion asks for completions as a shell does, of a running node.
func TestCompletion(t *testing.T) {
	t.Parallel()
	s := play(t)
	for _, tc := range []struct{ words, want string }{
		{"component restart |", "dns.coredns\n"},
		{"component restart dns.coredns |", "cni.flannel\n"},
		{"component configure flannel |", "backend=\t"},
		{"component enable |", "dns=coredns\n"},
		{"server --disable servicelb,|", "servicelb,dns\n"},
		{"status -o |", "yaml\n"},
		{"uninst|", "uninstall\t"},
		{"snapshot restore |", ":0\n"}, // files
		{"snapshot save |", ":4\n"},    // none
		{"kubectl --kubeconfig " + s.node.Host.Kubeconfig + " get namespaces kube-s|", "kube-system\n"},
	} {
		words := strings.Split(strings.TrimSuffix(tc.words, "|"), " ")
		out, err := s.node.Host.K3m(within(t, 30*time.Second), append([]string{"__complete"}, words...)...).Output()
		if err != nil || !strings.Contains(out, tc.want) {
			t.Errorf("%s: %v: %q", tc.words, err, out)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := s.k3m("completion", shell)
		if !strings.Contains(script, "k3m") || len(script) < 1000 {
			t.Errorf("%s: %q", shell, script)
		}
	}
	script := filepath.Join(t.TempDir(), "k3m.bash")
	if err := os.WriteFile(script, []byte(s.k3m("completion", "bash")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.node.Host.Command(within(t, 10*time.Second), "/bin/bash", "-n", script).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	pages := t.TempDir()
	if out := s.k3m("man", pages); !strings.Contains(out, "pages") {
		t.Errorf("it says %q", out)
	}
	if text, err := os.ReadFile(filepath.Join(pages, "k3m-support-bundle.1")); err != nil || !strings.Contains(string(text), ".TH") {
		t.Errorf("%v: %.200s", err, text)
	}
}
