package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// loadFiles is Load with a configuration file and its drop-ins, by their base names.
func loadFiles(t *testing.T, files map[string]string, overlay map[string]string, args ...string) (*Config, error) {
	t.Helper()
	main := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.Mkdir(DropInDir(main), 0o755); err != nil {
		t.Fatal(err)
	}
	path := func(name string) string {
		if name == "config.yaml" {
			return main
		}
		return filepath.Join(DropInDir(main), name)
	}
	for name, text := range files {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
	Flags(fs)
	if err := fs.Parse(append([]string{"--config", main}, args...)); err != nil {
		t.Fatal(err)
	}
	l, err := NewLoader(fs, Environment{Hostname: os.Hostname})
	if err != nil {
		return nil, err
	}
	over := map[string][]byte{}
	for name, text := range overlay {
		over[path(name)] = []byte(text)
		if text == "" {
			over[path(name)] = nil
		}
	}
	return l.Load(over)
}

func TestDropInsInTheOrderOfTheirNames(t *testing.T) {
	main := "node-name: a\ndisable: [dns]\nkubelet-arg: [max-pods=1]\n" +
		"components:\n  cni.flannel: {backend: vxlan, mtu: 1400, pools: [{size: 1}]}\n"
	for name, tc := range map[string]struct {
		files   map[string]string
		overlay map[string]string
		args    []string
		check   func(*Config) string
		want    string
	}{
		"later wins": {files: map[string]string{"20-b.yaml": "node-name: c", "10-a.yaml": "node-name: b"},
			check: func(c *Config) string { return c.NodeName }, want: "c"},
		"a flag wins over all": {files: map[string]string{"10-a.yaml": "node-name: b"}, args: []string{"--node-name=z"},
			check: func(c *Config) string { return c.NodeName }, want: "z"},
		"a list is replaced": {files: map[string]string{"10-a.yaml": "disable: [ingress]"},
			check: func(c *Config) string { return strings.Join(Texts(c.Disable), " ") }, want: "ingress"},
		"a list is added to": {files: map[string]string{"10-a.yaml": "disable+: [ingress]", "20-b.yaml": "disable+: servicelb"},
			check: func(c *Config) string { return strings.Join(Texts(c.Disable), " ") }, want: "dns ingress servicelb"},
		"a list is emptied": {files: map[string]string{"10-a.yaml": "disable: []"},
			check: func(c *Config) string { return strings.Join(Texts(c.Disable), " ") }, want: ""},
		"added to what another drop-in says": {files: map[string]string{"10-a.yaml": "enable: [x]", "20-b.yaml": "enable+: [y]"},
			check: func(c *Config) string { return strings.Join(Texts(c.Enable), " ") }, want: "x y"},
		"blocks merge key by key": {files: map[string]string{"10-a.yaml": "components: {cni.flannel: {mtu: 1300}, dns.coredns: {a: 1}}"},
			check: func(c *Config) string {
				return string(c.Components["cni.flannel"].Raw) + string(c.Components["dns.coredns"].Raw)
			},
			want: `{"backend":"vxlan","mtu":1300,"pools":[{"size":1}]}{"a":1}`},
		"null takes a key away": {files: map[string]string{"10-a.yaml": "components: {cni.flannel: {mtu: null, pools: }}"},
			check: func(c *Config) string { return string(c.Components["cni.flannel"].Raw) }, want: `{"backend":"vxlan"}`},
		"other files are not read": {files: map[string]string{"10-a.yml": "node-name: b", ".10-a.yaml": "node-name: b", "a.yaml~": "node-name: b"},
			check: func(c *Config) string { return c.NodeName }, want: "a"},
		"the overlay is as good as a file": {files: map[string]string{"10-a.yaml": "node-name: b"}, overlay: map[string]string{"10-a.yaml": "", "20-new.yaml": "disable+: [x]"},
			check: func(c *Config) string { return c.NodeName + " " + strings.Join(Texts(c.Disable), " ") }, want: "a dns x"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.files == nil {
				tc.files = map[string]string{}
			}
			tc.files["config.yaml"] = main
			c, err := loadFiles(t, tc.files, tc.overlay, tc.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got := tc.check(c); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestMistakesInDropIns(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"unknown key":          {"\nenabel+: [x]", []string{"config.yaml.d/10-a.yaml:2:1", `"enabel+"`, `"enable"`}},
		"added to one text":    {"node-name+: b", []string{"10-a.yaml:1:1", "node-name"}},
		"a key twice":          {"enable: [x]\nenable: [y]", []string{"10-a.yaml:2:1", "already"}},
		"a key twice in block": {"components:\n  a.b:\n    x: 1\n    x: 2", []string{"10-a.yaml:3:5", "x"}},
		"not YAML":             {"a: [", []string{"10-a.yaml", ":1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadFiles(t, map[string]string{"10-a.yaml": tc.text, "config.yaml": ""}, nil)
			var mistake *Error
			if !errors.As(err, &mistake) {
				t.Fatalf("error is %v, want a *config.Error", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is more than one line", err)
			}
		})
	}
}

func TestPlacesOfKeysInBlocks(t *testing.T) {
	c, err := loadFiles(t, map[string]string{
		"config.yaml": "components:\n  a.b:\n    port: 1\n    pools:\n      - size: 1\n      - size: 2\n        deep: {er: 1}\n",
		"10-a.yaml":   "components:\n  a.b: {port: 2}\n",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	block := c.Components["a.b"]
	for path, want := range map[string]string{
		"":                  "config.yaml:2:3",
		"port":              "10-a.yaml:2:9",
		"pools[1].size":     "config.yaml:6:9",
		"pools[1].deep.er":  "config.yaml:7:16",
		"pools[1].missing":  "config.yaml:6:9",
		"pools[0]":          "config.yaml:5:9",
		"missing.and.below": "config.yaml:2:3",
	} {
		if got := block.At(path); !strings.HasSuffix(got, want) {
			t.Errorf("%q is at %s, want %s", path, got, want)
		}
	}
}

func TestChangedOptions(t *testing.T) {
	before, err := loadFiles(t, map[string]string{"config.yaml": "node-name: a\nkubelet-arg: [max-pods=1]\n"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := loadFiles(t, map[string]string{"config.yaml": "\n\nkubelet-arg: [max-pods=2]\nnode-name: a\ndebug: true\n"}, nil, "--profiling")
	if err != nil {
		t.Fatal(err)
	}
	// The folder of the test is another one, too.
	if got, want := before.Changed(after), []string{"config", "kubelet-arg", "profiling", "debug"}; !slices.Equal(got, want) {
		t.Errorf("changed are %v, want %v", got, want)
	}
}

func TestStrongerSources(t *testing.T) {
	fs := pflag.NewFlagSet("server", pflag.ContinueOnError)
	Flags(fs)
	if err := fs.Parse([]string{"--enable", "x"}); err != nil {
		t.Fatal(err)
	}
	l, err := NewLoader(fs, Environment{Lookup: func(name string) (string, bool) { return "y", name == "K3M_DISABLE" }, Hostname: os.Hostname})
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[string]string{"enable": "--enable", "disable": "K3M_DISABLE", "node-name": ""} {
		if got := l.Stronger(option); got != want {
			t.Errorf("%s is shadowed by %q, want %q", option, got, want)
		}
	}
}
