package clustercomponents

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The placeholders in components' objects.
const (
	clusterDNS    = "$(CLUSTER_DNS)"
	clusterDomain = "$(CLUSTER_DOMAIN)"
	serverCA      = "$(SERVER_CA)"
)

// expander puts the cluster's own values in the place of placeholders.
type expander struct {
	dns     []netip.Addr
	replace *strings.Replacer
}

func newExpander(o Options) expander {
	pairs := []string{clusterDomain, o.ClusterDomain, serverCA, base64.StdEncoding.EncodeToString(o.ServerCA)}
	if len(o.ClusterDNS) > 0 {
		pairs = append(pairs, clusterDNS, o.ClusterDNS[0].String())
	}
	return expander{dns: o.ClusterDNS, replace: strings.NewReplacer(pairs...)}
}

// object reads an object and expands the placeholders in its strings, keys excepted.
// $(CLUSTER_DNS) is the first address; as an item of a list on its own it becomes one item for
// each address.
func (e expander) object(raw json.RawMessage) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("read an object: %w", err)
	}
	o.Object = e.value(o.Object).(map[string]any)
	return o, nil
}

func (e expander) value(v any) any {
	switch v := v.(type) {
	case string:
		return e.replace.Replace(v)
	case map[string]any:
		for key, item := range v {
			v[key] = e.value(item)
		}
	case []any:
		var out []any
		for _, item := range v {
			if item == clusterDNS {
				for _, a := range e.dns {
					out = append(out, a.String())
				}
				continue
			}
			out = append(out, e.value(item))
		}
		return out
	}
	return v
}
