package components

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

func TestConfigKeys(t *testing.T) {
	keys, err := ConfigKeys(sdk.Info{Kind: "addon", Name: "a", ConfigSchema: json.RawMessage(`{"type":"object","properties":{
		"port":{"type":"integer","minimum":1,"maximum":65535,"default":80,"description":"where it listens"},
		"mode":{"enum":["a","b"],"title":"how it works"},
		"pools":{"type":"array","items":{"type":"object","properties":{"size":{"type":"integer","minimum":1}}}},
		"nodes":{"type":"object","additionalProperties":{"type":"object","properties":{"path":{"type":"string","pattern":"^/"}}}},
		"limits":{"type":"object","additionalProperties":false,"properties":{"cpu":{"type":"number","maximum":4}}}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%s", k.Path, k.Type, k.Default, k.Allowed, k.Description))
	}
	want := []string{
		"limits|object|||", "limits.cpu|number||at most 4|",
		"mode|string||a, b|how it works",
		"nodes|object|||", "nodes.*.path|string||matches ^/|",
		"pools|array|||", "pools[].size|integer||at least 1|",
		"port|integer|80|1 to 65535|where it listens",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("keys are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if keys, err := ConfigKeys(sdk.Info{}); keys != nil || err != nil {
		t.Errorf("a component without configuration has keys %v, %v", keys, err)
	}
}
