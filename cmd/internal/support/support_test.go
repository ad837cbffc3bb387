package support

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/cmd/internal/redact"
)

const planted = "hunter2-Zq8"

// unpack reads an archive.
func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
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
		content[h.Name] = string(text)
	}
}

func TestBundle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	b, err := Create(file, "folder", redact.New([]string{planted}))
	if err != nil {
		t.Fatal(err)
	}
	b.Add("a.txt", "says "+planted)
	b.Add("../../b.txt", "outside of its folder?")
	b.AddYAML("c.yaml", []byte("password: x1y2z3\nkept: yes\n"))
	b.AddYAML("broken.yaml", []byte("password: [x1y2z3"))
	b.Add("begin.txt", "first\n"+strings.Repeat("line\n", MaxFile/5)+"last")
	b.AddLog("end.log", "first\n"+strings.Repeat("line\n", MaxFile/5)+"last")
	b.Failed("d", errors.New("it said "+planted))
	b.AddHost(t.Context())
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	content := unpack(t, file)
	for name, text := range content {
		if strings.Contains(text, planted) || strings.Contains(text, "x1y2z3") {
			t.Errorf("%s holds a secret", name)
		}
	}
	for name, want := range map[string]string{
		"folder/a.txt": "says " + redact.Mark, "folder/b.txt": "outside", "folder/c.yaml": "kept: yes",
		"folder/begin.txt": "first", "folder/end.log": "last", "folder/errors.txt": "broken.yaml: it is not YAML",
		"folder/left-out.txt": "begin.txt: the last", "folder/host/processes.txt": "PPID", "folder/host/proc-meminfo.txt": "MemTotal",
	} {
		if !strings.Contains(content[name], want) {
			t.Errorf("%s is %.200q, without %q", name, content[name], want)
		}
	}
	if strings.Contains(content["folder/begin.txt"], "last") || strings.Contains(content["folder/end.log"], "first") {
		t.Error("the wrong ends were kept")
	}
	if _, err := Create(file, "folder", redact.New(nil)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing over another file gives %v", err)
	}
}

func TestBundleIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	b, err := Create(file, "folder", redact.New(nil))
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Repeat("#\n", MaxFile/2)
	for i := range MaxBundle/MaxFile + 2 {
		b.Add(strings.Repeat("x", i+1), whole)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	content, size := unpack(t, file), 0
	for _, text := range content {
		size += len(text)
	}
	if size > MaxBundle+1000 || strings.Count(content["folder/left-out.txt"], ": all ") != 2 {
		t.Errorf("%d bytes; left out: %q", size, content["folder/left-out.txt"])
	}
}

func TestScrub(t *testing.T) {
	const pod = `
apiVersion: v1
kind: Pod
metadata:
  name: p
  annotations: {example.org/x: swordfish, kubernetes.io/kept: "1", kubectl.kubernetes.io/last-applied-configuration: swordfish}
  managedFields: [{manager: kubectl}]
spec:
  initContainers:
  - {name: i, image: i, env: [{name: A, value: swordfish}]}
  containers:
  - name: c
    image: kept/image:1
    command: [sh, -c, "run --with swordfish"]
    args: [swordfish]
    env: [{name: KEPT, value: swordfish}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}]
    lifecycle: {preStop: {exec: {command: [swordfish]}}}
    livenessProbe: {exec: {command: [swordfish]}}
    readinessProbe: {httpGet: {port: 80, httpHeaders: [{name: X, value: swordfish}]}}
  ephemeralContainers:
  - {name: e, image: e, command: [swordfish]}
status: {phase: Running}
`
	var o unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(pod), &o.Object); err != nil {
		t.Fatal(err)
	}
	scrub(&o)
	text, err := yaml.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "swordfish") || strings.Contains(string(text), "manager") {
		t.Errorf("left in\n%s", text)
	}
	for _, kept := range []string{"kept/image:1", "KEPT", "kubernetes.io/kept", "phase: Running", "secretKeyRef", "kind: Pod"} {
		if !strings.Contains(string(text), kept) {
			t.Errorf("%s is not in\n%s", kept, text)
		}
	}
	var odd unstructured.Unstructured
	odd.Object = map[string]any{"kind": "Pod", "spec": map[string]any{"containers": "swordfish"}}
	scrub(&odd)
	if _, there := odd.Object["spec"]; there {
		t.Error("a pod that can't be read stays")
	}
}
