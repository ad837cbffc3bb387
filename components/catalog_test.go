package components

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"golang.org/x/sys/unix"
)

const someDigest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func someEntry(kind, name string) Entry {
	return Entry{
		Info: sdk.Info{Kind: kind, Name: name, Version: "1.0.0", Summary: "does something", Scope: sdk.NodeScope},
		Path: "bin/plugins", Args: []string{kind + "." + name}, SHA256: someDigest,
	}
}

func TestRecordRoundTrip(t *testing.T) {
	want := []Entry{someEntry("addon", "a"), someEntry("cni", "b")}
	want[1].Default = true
	data, err := EncodeRecord([]Entry{want[1], want[0]})
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRecord(bytes.NewReader(data))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %+v, %v; want %+v", got, err, want)
	}
}

func TestDecodeRecordRefuses(t *testing.T) {
	encode := func(entries ...Entry) string {
		data, err := EncodeRecord(entries)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	changed := func(change func(*Entry)) string {
		e := someEntry("addon", "a")
		change(&e)
		return encode(e)
	}
	tests := map[string]struct{ text, want string }{
		"nothing":              {"", "EOF"},
		"another format":       {`{"version":2,"plugins":[]}`, "format version 2; this k3m reads 1"},
		"an unknown field":     {`{"version":1,"plugins":[],"more":1}`, `unknown field "more"`},
		"two values":           {`{"version":1,"plugins":[]} {}`, "more than one JSON value"},
		"an ID twice":          {encode(someEntry("addon", "a"), someEntry("addon", "a")), "plugins[1]: addon.a is there twice"},
		"an unknown kind":      {changed(func(e *Entry) { e.Info.Kind = "toaster" }), `unknown kind "toaster"`},
		"an invalid info":      {changed(func(e *Entry) { e.Info.Name = "No Name" }), `"No Name"`},
		"a path upwards":       {changed(func(e *Entry) { e.Path = "../../bin/sh" }), `path "../../bin/sh" leads out`},
		"an absolute path":     {changed(func(e *Entry) { e.Path = "/bin/sh" }), `path "/bin/sh" leads out`},
		"an unclean path":      {changed(func(e *Entry) { e.Path = "bin//sh" }), "is not clean"},
		"no path":              {changed(func(e *Entry) { e.Path = "" }), "leads out"},
		"a short digest":       {changed(func(e *Entry) { e.SHA256 = "abcd" }), `sha256 "abcd" is not a SHA-256`},
		"an upper-case digest": {changed(func(e *Entry) { e.SHA256 = strings.ToUpper(someDigest) }), "lower-case"},
		"a zero byte":          {changed(func(e *Entry) { e.Args = []string{"a\x00b"} }), "zero byte"},
		"too large":            {strings.Repeat(" ", maxCatalogSize+1), "larger than"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeRecord(strings.NewReader(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func FuzzDecodeRecord(f *testing.F) {
	data, err := EncodeRecord([]Entry{someEntry("addon", "a"), someEntry("cni", "b")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"plugins":[{"info":{},"path":"../x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := DecodeRecord(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, e := range entries {
			if !filepath.IsLocal(e.Path) {
				t.Errorf("path %q was let through", e.Path)
			}
		}
		again, err := EncodeRecord(entries)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRecord(bytes.NewReader(again)); err != nil {
			t.Errorf("what was decoded can't be decoded again: %v", err)
		}
	})
}

// bundle makes a distribution with one built-in component.
func (n *node) bundle() string {
	n.t.Helper()
	dir := filepath.Join(n.dir, "bundle")
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	data, err := os.ReadFile(built.plugin)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/plugins"), data, 0o755); err != nil {
		n.t.Fatal(err)
	}
	err = BakeCatalog(context.Background(), Inspector{Launcher: built.launcher}, dir,
		Builtin{Path: "bin/plugins", Args: []string{"good", "runtime.built-in"}, Default: true},
		Builtin{Path: "bin/plugins", Args: []string{"good", "addon.built-in"}})
	if err != nil {
		n.t.Fatal(err)
	}
	return dir
}

func (n *node) installRequest(bundle, mode, id string) InstallRequest {
	return InstallRequest{
		Inspector: Inspector{Launcher: built.launcher, CgroupParent: n.cgroup}, Path: built.plugin, Args: []string{mode, id},
		BundleDir: bundle, DataDir: n.dataDir, Confirm: func(Entry) error { return nil },
	}
}

func TestBakeInstallDiscoverRemove(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle()
	ctx := context.Background()
	discover := func() *Catalog {
		t.Helper()
		c, err := Discover(bundle, n.dataDir)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if got := ids(discover().Entries()); got != "runtime.built-in, addon.built-in" {
		t.Errorf("the distribution has %s", got)
	}

	e, err := Install(ctx, n.installRequest(bundle, "good", "addon.third"))
	if err != nil {
		t.Fatal(err)
	}
	found, ok := discover().Find("addon.third")
	if !ok || !found.Installed() || found.SHA256 != e.SHA256 || found.Executable() != filepath.Join(n.dataDir, "plugins/addon.third") {
		t.Errorf("discovered %+v", found)
	}
	if err := found.Verify(); err != nil {
		t.Error(err)
	}
	for path, mode := range map[string]os.FileMode{"plugins.lock": 0o600, "addon.third": 0o755} {
		if st, err := os.Stat(filepath.Join(n.dataDir, "plugins", path)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}

	// An installed component runs as a built-in one does.
	n.entries = []Entry{found}
	t.Run("runs", func(t *testing.T) {
		n.t = t
		untilState(t, n.run(), "addon.third", Ready)
	})

	if err := os.WriteFile(found.Executable(), []byte("\x7fELF changed"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := found.Verify(); err == nil || !strings.Contains(err.Error(), "run `k3m component install "+found.Executable()+"` again") {
		t.Errorf("verify a changed file: %v", err)
	}
	if err := Remove(n.dataDir, "addon.third"); err != nil {
		t.Fatal(err)
	}
	if _, ok := discover().Find("addon.third"); ok {
		t.Error("it is still there")
	}
	err = Remove(n.dataDir, "addon.third")
	if want := "it is not an installed plugin: " + filepath.Join(n.dataDir, "plugins/plugins.lock") + " lists those that are"; !errors.Is(err, ErrNotInstalled) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("remove twice: %v", err)
	}
	if left := n.pluginFiles(); !slices.Equal(left, []string{installLock, LockFile}) {
		t.Errorf("left in the plugins' directory: %v", left)
	}
}

// pluginFiles lists the plugins' directory.
func (n *node) pluginFiles() []string {
	var names []string
	files, _ := os.ReadDir(filepath.Join(n.dataDir, "plugins"))
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// The plugins' directory is everybody's to open, and so to lock.
func TestNobodyElseCanLockInstallation(t *testing.T) {
	n := newNode(t)
	dir := filepath.Join(n.dataDir, "plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	removed := make(chan error, 1)
	go func() { removed <- Remove(n.dataDir, "addon.x") }()
	select {
	case err := <-removed:
		if !errors.Is(err, ErrNotInstalled) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		d.Close() // lets it go on
		<-removed
		t.Error("a lock on the directory kept Remove waiting")
	}
	if st, err := os.Stat(filepath.Join(dir, installLock)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", installLock, st, err)
	}
}

func TestInstallRefuses(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle()
	no := errors.New("the operator said no")
	tests := map[string]struct {
		mode, id string
		confirm  error
		want     string
	}{
		"the ID of a built-in": {"good", "addon.built-in", nil, "the distribution has a component addon.built-in of its own"},
		"an unknown kind":      {"good", "toaster.x", nil, `unknown kind "toaster"`},
		"no from the operator": {"good", "addon.x", no, "install plugin addon.x: the operator said no"},
		"what exits":           {"exit-at-once", "addon.x", nil, "ended with exit code 3 before it shook hands; it said: badplugin: leaving at once"},
		"what writes rubbish":  {"rubbish-on-stdout", "addon.x", nil, "where the handshake belongs"},
		"what can't be read":   {"malformed-info", "addon.x", nil, "don't print"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := n.installRequest(bundle, tt.mode, tt.id)
			r.Confirm = func(Entry) error { return tt.confirm }
			_, err := Install(context.Background(), r)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if left := n.pluginFiles(); !slices.Equal(left, []string{installLock}) {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	n.nothingLeft()
}

// A plugin that hides what it wants until it is trusted shows it in vain.
func TestInspectionShowsNoNetwork(t *testing.T) {
	needRoot(t)
	n := newNode(t)
	e := n.plugin("other-info", "addon.liar")
	if e.Info.Privileges.Root {
		t.Fatal("the plugin saw a network while it was inspected")
	}
	s := n.run()
	st := untilState(t, s, "addon.liar", Refused)
	if !strings.Contains(st.Reason, `it says another info than the one on record (privileges: {} -> {"capabilities":["CAP_SYS_ADMIN"],"root":true})`) {
		t.Errorf("reason %q", st.Reason)
	}
}

func TestDiscoverRefusesWritableCatalog(t *testing.T) {
	n := newNode(t)
	bundle := n.bundle()
	file := filepath.Join(bundle, "plugins", CatalogFile)
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Discover(bundle, n.dataDir)
	if err == nil || !strings.Contains(err.Error(), "can be written by other users (mode 0666)") {
		t.Errorf("error %v", err)
	}
}

func TestDescribe(t *testing.T) {
	e := Entry{SHA256: someDigest, Path: "addon.acme", root: "/var/lib/k3m/plugins", Info: sdk.Info{
		Kind: "addon", Name: "acme", Version: "2.1", Summary: "ships logs", Scope: sdk.NodeScope,
		Requires:   []sdk.Requirement{"api", "cni"},
		Privileges: sdk.Privileges{Root: true, Capabilities: []string{"CAP_NET_ADMIN", "CAP_SYS_PTRACE"}},
		Limits:     sdk.Limits{MemoryBytes: 64 << 20},
		Images:     []string{"example.org/acme:1"},
		Services:   []string{"acme/logs"}, ServingCertificate: true,
		Objects: []json.RawMessage{
			json.RawMessage(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"acme","name":"logs"}}`),
			json.RawMessage(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"acme"}}`),
		},
		Commands: []sdk.Command{{Name: "acme", Summary: "look at logs"}},
		Rules: []sdk.Rule{
			{Verbs: []string{"get", "list"}, APIGroups: []string{""}, Resources: []string{"pods", "pods/log"}},
			{Verbs: []string{"*"}, APIGroups: []string{"acme.io"}, Resources: []string{"sinks"}, ResourceNames: []string{"main"}},
			{Verbs: []string{"get"}, NonResourceURLs: []string{"/metrics"}},
		},
	}}
	want := `addon.acme 2.1: ships logs
  file          /var/lib/k3m/plugins/addon.acme
  sha256        0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  runs          on every node
  as            root (user 0): it can read and change all files of root's on the host
  may           CAP_NET_ADMIN, CAP_SYS_PTRACE
  memory        at most 64 MiB
  cpu           no limit
  waits for     api, cni
  API rights    get, list pods, pods/log
                do anything with sinks.acme.io named main
                get /metrics
  serves        acme/logs, with a certificate for its names
  owns          Service acme/logs
                Namespace acme
  pulls images  example.org/acme:1
  commands      k3m acme: look at logs
`
	if got := Describe(e); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
