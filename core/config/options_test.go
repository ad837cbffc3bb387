package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

// samples are values of options, for TestEverySource; booleans need none.
var samples = map[string]string{
	"data-dir": "/srv/k3m", "run-dir": "/run/other", "node-name": "edge", "node-ip": "192.0.2.1", "node-external-ip": "203.0.113.1",
	"node-label": "k3m.test/a=b", "node-taint": "k3m.test/a=b:NoSchedule", "write-kubeconfig": "/root/k3m.yaml",
	"write-kubeconfig-mode": "0644", "write-kubeconfig-group": "7", "token": "a-long-secret",
	"enable": "dns", "disable": "dns", "flannel-backend": "host-gw", "cluster-dns": "10.43.0.11", "cluster-domain": "k3m.test",
	"resolv-conf": "/etc/hostname", "default-local-storage-path": "/srv/volumes", "cluster-cidr": "10.52.0.0/16",
	"service-cidr": "10.53.0.0/16", "service-node-port-range": "31000-31009", "bind-address": "192.0.2.1", "https-listen-port": "7443",
	"advertise-address": "192.0.2.2", "tls-san": "k3m.test", "log": "/var/log/k3m.log", "log-format": "json",
	"datastore-sync": "normal", "snapshot-schedule": "0 1 * * *", "snapshot-retention": "7", "snapshot-dir": "/srv/snapshots",
	"private-registry": "/etc/hostname", "pause-image": "registry.example.com/pause:3.10", "snapshotter": "native",
	"kube-apiserver-arg": "v=1", "kube-controller-manager-arg": "v=1", "kube-scheduler-arg": "v=1", "kubelet-arg": "v=1", "kube-proxy-arg": "v=1",
}

// TestEverySource gives every option as a flag, a variable and a key, and expects the same
// configuration each time, another one than without it.
func TestEverySource(t *testing.T) {
	without, err := load(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("another-secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		value, ok := samples[o.name]
		switch {
		case o.name == "config": // tells where the file is
			continue
		case o.name == "token-file":
			value = token
		case o.boolean:
			value = "true"
		case !ok:
			t.Errorf("samples lacks a value for %s", o.name)
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			var first *Config
			for source, given := range map[string]func() (*Config, error){
				"flag":     func() (*Config, error) { return load(t, []string{"--" + o.name + "=" + value}, nil, "") },
				"variable": func() (*Config, error) { return load(t, nil, map[string]string{Variable(o.name): value}, "") },
				"key":      func() (*Config, error) { return load(t, nil, nil, o.name+": "+value+"\n") },
			} {
				c, err := given()
				if err != nil {
					t.Fatalf("%s: %v", source, err)
				}
				if got := Texts(c.settings[o.name]); len(got) != 1 || got[0] != value {
					t.Errorf("%s: it holds %q", source, got)
				}
				same := func(c *Config) string {
					bare := *c
					bare.File, bare.settings = "", nil
					for _, v := range []*Value{&bare.FlannelBackend, &bare.Snapshotter, &bare.PrivateRegistry, &bare.DisableDefaultRegistryEndpoint} {
						v.Source = ""
					}
					for _, values := range []*[]Value{&bare.Enable, &bare.Disable, &bare.APIServerArgs, &bare.ControllerManagerArgs,
						&bare.SchedulerArgs, &bare.KubeletArgs, &bare.KubeProxyArgs} {
						texts := []Value(nil)
						for _, v := range *values {
							texts = append(texts, Value{Text: v.Text})
						}
						*values = texts
					}
					return fmt.Sprintf("%+v", bare)
				}
				if same(c) == same(without) {
					t.Errorf("%s: it changes nothing", source)
				}
				if first == nil {
					first = c
				} else if same(c) != same(first) {
					t.Errorf("%s: %s\nanother source: %s", source, same(c), same(first))
				}
			}
		})
	}
}

// FuzzOption gives any option any text: it is taken, or refused in one sentence that names its
// source; and what is taken is printed as a file that says the same.
func FuzzOption(f *testing.F) {
	for i, text := range []string{"a", "10.42.0.0/16,fd42::/56", "k=v:NoSchedule", "0640", "1-2", "::ffff:1.2.3.4/100", "\n# x: y", "0x1F", "~"} {
		f.Add(i, text)
	}
	f.Fuzz(func(t *testing.T, i int, text string) {
		o := options[(i%len(options)+len(options))%len(options)]
		switch o.name {
		case "token-file", "config", "resolv-conf": // they read files
			return
		}
		c := &Config{}
		err := o.set(c, []Value{{text, "here"}})
		var mistake *Error
		if err != nil && (!errors.As(err, &mistake) || mistake.Source != "here") {
			t.Fatalf("%s %q: %v does not name its source", o.name, text, err)
		}
		if err != nil || o.secret || !utf8.ValidString(text) {
			return
		}
		c.settings = map[string][]Value{o.name: {{text, "here"}}}
		var out bytes.Buffer
		if err := c.Print(&out); err != nil {
			t.Fatal(err)
		}
		parsed, err := parseFile("printed", out.Bytes())
		if err != nil {
			t.Fatalf("%s %q is printed as\n%s: %v", o.name, text, out.String(), err)
		}
		if got := Texts(parsed.values[o.name]); len(got) != 1 || got[0] != text {
			t.Errorf("%s %q is printed as\n%s", o.name, text, out.String())
		}
	})
}
