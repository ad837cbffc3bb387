package nftables

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

func TestContract(t *testing.T) {
	n := newNode(t)
	n.newPod(11, "a", "web", "app=web")
	n.api.put(policyObject("a", "deny", denyIngress))
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(kubeconfig, []byte(n.api.kubeconfig()), 0o600))
	config, err := json.Marshal(config{AddressRecords: n.records})
	must(t, err)
	facts := n.facts
	facts.Paths = sdk.Paths{}
	plugintest.Run(t, plugintest.Options{
		New:        New,
		Executable: executable(t), // see TestMain
		Args:       []string{componentID},
		Facts:      facts,
		Kubeconfig: kubeconfig,
		Config:     config,
		BadConfigs: []plugintest.BadConfig{
			{Name: "a relative path", Config: json.RawMessage(`{"addressRecords": "cni/networks"}`), Path: "addressRecords"},
			{Name: "no text", Config: json.RawMessage(`{"addressRecords": 1}`), Path: "addressRecords"},
		},
		WhileReady: func(t *testing.T, _ sdk.Facts) {
			if out, err := nft("list", "map", "inet", tableName, "ingress4"); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		},
	})
}

// TestCleanup leaves nothing, and no pod closed.
func TestCleanup(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "app=client")
	n.newPod(12, "a", "web", "app=web")
	n.api.put(policyObject("a", "deny", denyIngress))
	c := n.run()
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false})
	metrics, err := c.Metrics(t.Context())
	must(t, err)
	t.Logf("%s", metrics)
	c.stop()
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false}) // a stop is no cleanup
	n.cleanup()
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", true})
	for _, family := range []string{"inet", "bridge"} {
		if out, err := nft("list", "table", family, tableName); err == nil {
			t.Errorf("the table is there still:\n%s", out)
		}
	}
}
