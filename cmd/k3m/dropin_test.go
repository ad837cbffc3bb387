package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
)

func TestDropInKeepsWhatOtherCommandsWrote(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	edit := func(change func(*dropIn)) string {
		t.Helper()
		d, err := openDropIn(file)
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		change(d)
		d.tidy()
		text, err := d.text()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.write(text); err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	set := func(id, path string, value any) func(*dropIn) {
		return func(d *dropIn) {
			block, err := d.block(id)
			if err == nil {
				err = setPath(block, nil, path, value)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	edit(set("dns.coredns", "cache", 30))
	edit(set("cni.flannel", "mtu", 1400))
	got := edit(func(d *dropIn) { d.setList("disable", []string{"a"}, []string{"a", "b"}) })
	want := dropInHeader + "components:\n  cni.flannel:\n    mtu: 1400\n  dns.coredns:\n    cache: 30\ndisable+:\n  - b\n"
	if got != want {
		t.Errorf("the file is\n%s\nwant\n%s", got, want)
	}
	if st, err := os.Stat(filepath.Join(config.DropInDir(file), ownDropIn)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v", st.Mode(), err)
	}
	edit(set("dns.coredns", "cache", nil))
	edit(set("cni.flannel", "mtu", nil))
	if got := edit(func(d *dropIn) { d.setList("disable", []string{"a"}, []string{"a"}) }); got != "" {
		t.Errorf("an empty change leaves\n%s", got)
	}
	if _, err := os.Stat(config.DropInDir(file)); err == nil {
		t.Error("the folder of drop-ins is still there, empty")
	}
}

func TestRestorePutsTheOldFileBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	for _, before := range []string{"", "enable+: [x]\n"} {
		path := filepath.Join(config.DropInDir(file), ownDropIn)
		if before != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d, err := openDropIn(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.write([]byte("enable+: [y]\n")); err != nil {
			t.Fatal(err)
		}
		if err := d.restore(); err != nil {
			t.Fatal(err)
		}
		d.close()
		after, _ := os.ReadFile(path)
		if string(after) != before {
			t.Errorf("the file holds %q, want %q", after, before)
		}
	}
}

// A mistake has one exit code, whoever finds it out.
func TestMistakeThatTheServerFinds(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want int
	}{
		"a configuration":               {&config.Error{Source: "file:1:1", Message: "no"}, 2},
		"that the component refuses":    {&components.ConfigError{ID: "dns.a", Message: "no"}, 2},
		"what needs a stop of the node": {&components.NodeRestartError{ID: "cni.a", Why: "so it is"}, 1},
		"anything else":                 {errors.New("no"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			runDir := adminStub(t, func(w http.ResponseWriter, _ *http.Request) { refuseAdmin(w, refusalStatus(tc.err), tc.err) })
			if got := exitCode(sendAdmin(t.Context(), runDir, http.MethodPost, reloadPath, reloadRequest{}, nil)); got != tc.want {
				t.Errorf("exit code %d, want %d", got, tc.want)
			}
		})
	}
}

// Only a server that said no has certainly not made the change.
func TestChangeThatFailsComesBackIfTheServerSaidNo(t *testing.T) {
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		kept  bool
	}{
		"refused":             {func(w http.ResponseWriter, _ *http.Request) { refuseAdmin(w, 422, errors.New("no")) }, false},
		"refused, no word":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, false},
		"the connection ends": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		"half an answer":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{")) }, true},
		"no answer in time":   {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := openDropIn(filepath.Join(t.TempDir(), "config.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			defer d.close()
			if err := d.write([]byte("enable+: [y]\n")); err != nil {
				t.Fatal(err)
			}
			arrived := make(chan struct{}, 1)
			runDir := adminStub(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client goes
				arrived <- struct{}{}
				tc.serve(w, r)
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if name == "no answer in time" {
				go func() { <-arrived; cancel() }()
			}
			var answer reloadAnswer
			err = d.unmade(sendAdmin(ctx, runDir, http.MethodPost, reloadPath, reloadRequest{}, &answer))
			_, gone := os.Stat(d.path)
			if err == nil || (gone == nil) != tc.kept || strings.Contains(err.Error(), "k3m status") != tc.kept {
				t.Errorf("kept: %v; the error is %v", gone == nil, err)
			}
		})
	}
}

// adminStub answers in the place of a server, and returns its run directory.
func adminStub(t *testing.T, serve http.HandlerFunc) string {
	t.Helper()
	runDir, err := os.MkdirTemp("", "k3m") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runDir) })
	if err := os.MkdirAll(filepath.Dir(adminSocket(runDir)), 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", adminSocket(runDir))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: serve}}
	server.Start()
	t.Cleanup(server.Close)
	return runDir
}

// Who holds the drop-in removes its folder at the end; who waits must not hold the lock of the
// folder that went while a third holds that of a new one.
func TestDropInHasOneHolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	var holders atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				d, err := openDropIn(file)
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold it", n)
				}
				holders.Add(-1)
				d.close()
				d.close()
			}
		})
	}
	all.Wait()
	if _, err := os.Stat(config.DropInDir(file)); err == nil {
		t.Error("the folder of drop-ins is still there, empty")
	}
}

func TestBrokenDropInIsNotOverwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	path := filepath.Join(config.DropInDir(file), ownDropIn)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("enable: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDropIn(file); err == nil {
		t.Error("it was read")
	}
}

func TestSetPath(t *testing.T) {
	parse := func(text string) map[string]any {
		value := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		return value
	}
	for name, tc := range map[string]struct {
		block, merged, path string
		value               any
		want                string // empty: an error
	}{
		"a key":                            {"{a: 1}", "{}", "b", 2, "{a: 1, b: 2}"},
		"a key goes":                       {"{a: 1, b: 2}", "{}", "b", nil, "{a: 1}"},
		"of an object that isn't there":    {"{}", "{}", "a.b.c", 1, "{a: {b: {c: 1}}}"},
		"of one of a weaker file":          {"{}", "{a: {x: 1, b: {y: 2}}}", "a.b.c", 1, "{a: {x: 1, b: {y: 2, c: 1}}}"},
		"of one that is the drop-in's own": {"{a: {x: 2}}", "{a: {x: 1}}", "a.b", 1, "{a: {x: 2, b: 1}}"},
		"goes from one of a weaker file":   {"{}", "{a: {x: 1, b: 2}}", "a.b", nil, "{a: {x: 1}}"},
		"of a text":                        {"{}", "{a: text}", "a.b", 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			block, merged := parse(tc.block), parse(tc.merged)
			err := setPath(block, merged, tc.path, tc.value)
			if (err != nil) != (tc.want == "") {
				t.Fatalf("error is %v", err)
			}
			got, _ := yaml.Marshal(block)
			want, _ := yaml.Marshal(parse(tc.want))
			if err == nil && string(got) != string(want) {
				t.Errorf("block is\n%swant\n%s", got, want)
			}
			before, _ := yaml.Marshal(parse(tc.merged))
			if after, _ := yaml.Marshal(merged); string(after) != string(before) {
				t.Errorf("the merged block was changed to %s", after)
			}
		})
	}
}
