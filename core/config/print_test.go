package config

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

const everything = `node-label: [zone=a, 'note=']
cluster-domain: "yes"
kubelet-arg: [max-pods=200, "v=2"]
write-kubeconfig-mode: "0640"
disable: []
components:
  cni.flannel:
    backend: host-gw
    mtu: 1400
    pools: [{name: "a: b", sizes: [1, 2.5]}, {}]
    on: true
  dns.coredns: {}
`

func TestPrint(t *testing.T) {
	c, err := load(t, []string{"--tls-san=k3m.example.org", "--node-taint=a=b:NoSchedule"},
		map[string]string{"K3M_TOKEN": "very-secret", "K3M_NODE_EXTERNAL_IP": "192.0.2.1,2001:db8::1"}, everything)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Contains(text, "very-secret") {
		t.Errorf("it tells the token:\n%s", text)
	}
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		what, source, _ := strings.Cut(strings.TrimSpace(line), " # ")
		lines[strings.TrimSpace(what)] = source
	}
	for what, source := range map[string]string{
		"node-name: edge-1":           "default",
		"- zone=a":                    ":1:14",
		`cluster-domain: yes`:         ":2:17",
		"- max-pods=200":              ":3:15",
		"write-kubeconfig-mode: 0640": ":4:24",
		"- k3m.example.org":           "--tls-san",
		"- a=b:NoSchedule":            "--node-taint",
		"- 192.0.2.1":                 "K3M_NODE_EXTERNAL_IP",
		"- 10.42.0.0/16":              "default",
		"- 10.43.0.10":                "default",
		"https-listen-port: 6443":     "default",
		"debug: false":                "default",
		"disable: []":                 "emptied",
		"# token: not shown":          "K3M_TOKEN",
		"# flannel-backend: not set":  "default",
		`"cni.flannel":`:              ":7:3",
		`"mtu": 1400`:                 ":9:5",
		`"name": "a: b"`:              ":10:14",
		`- 2.5`:                       ":10:39",
		`"dns.coredns": {}`:           ":12:3",
	} {
		got, ok := lines[what]
		if !ok || !strings.HasSuffix(got, source) {
			t.Errorf("%s is from %q, want %q", what, got, source)
		}
	}
	if t.Failed() {
		t.Log("\n" + text)
	}

	// What is printed says the same again.
	again, err := load(t, nil, map[string]string{"K3M_TOKEN": "very-secret"}, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, config := range []*Config{c, again} {
		config.File, config.settings = "", nil
		for id, block := range config.Components {
			config.Components[id] = Component{Raw: block.Raw}
		}
		for _, values := range [][]Value{config.Enable, config.Disable, config.KubeletArgs} {
			for i := range values {
				values[i].Source = ""
			}
		}
	}
	if !reflect.DeepEqual(c, again) {
		t.Errorf("printed and read again it is\n%+v\nand was\n%+v", again, c)
	}
}
