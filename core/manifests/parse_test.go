package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // kind/name@line
		err  []string
	}{
		"nothing":       {text: ""},
		"comments only": {text: "# a comment\n---\n# another\n"},
		"one":           {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", want: []string{"ConfigMap/a@1"}},
		"several, what others need first": {
			text: "# first\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n---\n\n# b\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n...\n--- # c\napiVersion: v1\nkind: Service\nmetadata: {name: c}\n",
			want: []string{"Namespace/b@10", "Pod/a@3", "Service/c@15"},
		},
		"on the marker's line": {text: "--- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n", want: []string{"ConfigMap/a@1"}},
		"a marker in a text stays the text's": {
			text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: |\n    a\n    ---\n    b\n", want: []string{"ConfigMap/a@1"},
		},
		"Windows line ends and a byte order mark": {text: "\xef\xbb\xbfapiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: a\r\n---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata:\r\n  name: b\r\n", want: []string{"ConfigMap/a@1", "ConfigMap/b@6"}},
		"a list":                   {text: "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n", want: []string{"ConfigMap/a@1", "ConfigMap/b@1"}},
		"JSON":                     {text: `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}`, want: []string{"ConfigMap/a@1"}},
		"no YAML":                  {text: "apiVersion: v1\nkind: [\n", err: []string{"f.yaml:", "did not find expected"}},
		"no YAML, later":           {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: ConfigMap\n\tbad: x\n", err: []string{"f.yaml:6: "}},
		"a key twice":              {text: "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: 1\n  x: 2\n", err: []string{"f.yaml:7: ", `"x" already set`}},
		"no kind":                  {text: "---\n\napiVersion: v1\nmetadata: {name: a}\n", err: []string{"f.yaml:3: it has no kind"}},
		"no apiVersion":            {text: "kind: ConfigMap\nmetadata: {name: a}\n", err: []string{"f.yaml:1: it has no apiVersion"}},
		"no name":                  {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", err: []string{"metadata.name is to be a text"}},
		"a number for a name":      {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 1}\n", err: []string{"metadata.name is to be a text"}},
		"a name to be made":        {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n", err: []string{"give it a metadata.name"}},
		"a number in a label":      {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {x: 1}}\n", err: []string{`the value of "x" is to be a text: put it in quotes`}},
		"a text":                   {text: "hello\n", err: []string{"f.yaml:1: an object is a list of keys"}},
		"twice the same object":    {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", err: []string{"f.yaml:5: ConfigMap a stands at f.yaml:1 already"}},
		"two mistakes":             {text: "kind: A\n---\nkind: B\n", err: []string{"f.yaml:1: ", "f.yaml:3: "}},
		"no text":                  {text: "\x00\x01", err: []string{"f.yaml: it is no text"}},
		"an alias that multiplies": {text: bomb(), err: []string{"f.yaml:"}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := Parse("f.yaml", []byte(c.text))
			var got []string
			for _, o := range found {
				got = append(got, o.GetKind()+"/"+o.GetName()+"@"+strings.TrimPrefix(o.Place, "f.yaml:"))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (err != nil) != (c.err != nil) {
				t.Fatalf("error %v", err)
			}
			for _, want := range c.err {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// bomb is a document whose aliases stand for a billion texts.
func bomb() string {
	text := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		from, to := string(rune('0'+i)), string(rune('1'+i))
		text += "a" + to + ": &a" + to + " [" + strings.TrimSuffix(strings.Repeat("*a"+from+",", 10), ",") + "]\n"
	}
	return text
}

func TestWhatTheAPIGivesOutIsLeftOut(t *testing.T) {
	found, err := Parse("f.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, uid: x, resourceVersion: '7', creationTimestamp: null}\nstatus: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if m := found[0].Object["metadata"].(map[string]any); len(m) != 1 || found[0].Object["status"] != nil {
		t.Errorf("it is %v", found[0].Object)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: List\napiVersion: v1\nitems: [{}]\n"))
	f.Add([]byte("--- {apiVersion: v1, kind: A, metadata: {name: a}}\n...\n---\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("%YAML 1.2\n---\n{\"kind\": 1}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := Parse("f", text)
		if err != nil && (len(found) > 0 || !strings.HasPrefix(err.Error(), "f:")) {
			t.Errorf("%d objects with the error %q", len(found), err)
		}
		for _, o := range found {
			if o.GetKind() == "" || o.GetAPIVersion() == "" || o.GetName() == "" || !strings.HasPrefix(o.Place, "f:") {
				t.Errorf("object %v at %q", o.Object, o.Place)
			}
			if _, err := o.MarshalJSON(); err != nil {
				t.Error(err)
			}
			o.DeepCopy() // panics at what can't be in an object
		}
	})
}

func TestNames(t *testing.T) {
	for file, want := range map[string]string{"whoami.yaml": "whoami.yaml", "sub/Whoami.yaml": "sub-whoami-yaml-", "ä.yaml": "yaml-"} {
		if got := nameOf(file); !strings.HasPrefix(got, want) || len(got) > len(want)+8 {
			t.Errorf("%s is called %s", file, got)
		}
	}
	if nameOf("a/b.yaml") == nameOf("a-b/yaml") {
		t.Error("two files have one name")
	}
}

func TestScan(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const good = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	write("b.yaml", good)
	write("sub/deep/a.yml", good)
	write("c.json", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}`)
	write("c.json.skip", "")
	write("gone.yaml.skip", "")
	write(".hidden.yaml", "rubbish")
	write(".git/x.yaml", "rubbish")
	write("readme.txt", "rubbish")
	write("broken.yaml", "kind: [\n")
	outside := filepath.Join(t.TempDir(), "outside.yaml")
	if err := os.WriteFile(outside, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "link.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(root, "nowhere.yaml")); err != nil {
		t.Fatal(err)
	}
	big, err := os.Create(filepath.Join(root, "big.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := big.Truncate(maxFile + 1); err != nil {
		t.Fatal(err)
	}
	big.Close()

	f := folder{root: root}
	c, err := f.scan()
	if err != nil || c.problem != nil || c.busy {
		t.Fatalf("%+v, %v", c, err)
	}
	var got []string
	for _, file := range c.files {
		state := "good"
		if file.err != nil {
			state = "bad"
		}
		got = append(got, file.name+" "+state)
	}
	want := []string{"b.yaml good", "big.yaml bad", "broken.yaml bad", "c.json good", "link.yaml good", "nowhere.yaml bad", "sub/deep/a.yml good"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !c.skips["c.json"] || !c.skips["gone.yaml"] || c.skips["b.yaml"] {
		t.Errorf("skips %v", c.skips)
	}

	// A file that is being written is as it was; one that is broken keeps the objects it had.
	writer, err := os.OpenFile(filepath.Join(root, "b.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	write("link.yaml", "kind: [\n")
	c, err = f.scan()
	if b := c.files[0]; err != nil || !c.busy || !b.busy || len(b.objects) != 1 {
		t.Errorf("while it is written: %+v, %v", b, err)
	}
	if link := c.files[4]; link.err == nil || len(link.objects) != 1 {
		t.Errorf("broken, it is %+v", link)
	}
	if _, err := writer.WriteString("# nothing\n"); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	c, err = f.scan()
	if b := c.files[0]; err != nil || c.busy || b.busy || b.err != nil || len(b.objects) != 0 {
		t.Errorf("when it is written: %+v, %v", b, err)
	}
}

// TestTreeWatch makes changes anywhere in a tree, one after the other; each wakes the watch.
func TestTreeWatch(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := newTreeWatch(root)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	events := make(chan error)
	go func() {
		for {
			err := w.next()
			events <- err
			if err != nil {
				return
			}
		}
	}()
	path := func(name string) string { return filepath.Join(root, name) }
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, change := range []func(){
		func() { must(os.WriteFile(path("a.yaml"), []byte("x"), 0o600)) },
		func() { must(os.WriteFile(path("old/a.yaml"), []byte("x"), 0o600)) },
		func() { must(os.Mkdir(path("new"), 0o700)) },
		func() { must(os.WriteFile(path("new/a.yaml"), []byte("x"), 0o600)) },
		func() { must(os.Rename(path("new/a.yaml"), path("new/b.yaml"))) },
		func() { must(os.Remove(path("new/b.yaml"))) },
		func() { must(os.Remove(path("new"))) },
	} {
		change()
		select {
		case err := <-events:
			must(err)
		case <-time.After(10 * time.Second):
			t.Fatal("a change went unseen")
		}
		for drained := false; !drained; { // a change may be several events
			select {
			case err := <-events:
				must(err)
			case <-time.After(50 * time.Millisecond):
				drained = true
			}
		}
	}
	must(os.RemoveAll(root))
	for err = nil; err == nil; {
		select {
		case err = <-events:
		case <-time.After(10 * time.Second):
			t.Fatal("nothing tells that the folder has gone")
		}
	}
	if err != errRootGone { //nolint:errorlint // itself
		t.Errorf("the end is %v", err)
	}
}
