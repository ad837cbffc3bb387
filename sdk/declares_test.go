package sdk

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDeclares(t *testing.T) {
	service := ObjectRef{APIVersion: "v1", Kind: "Service", Namespace: "kube-system", Name: "mine"}
	for name, tt := range map[string]struct {
		declares []ObjectRef
		want     string // "" is good
	}{
		"a Service and a class": {declares: []ObjectRef{service, {APIVersion: "networking.k8s.io/v1", Kind: "IngressClass", Name: "mine"}}},
		"twice":                 {declares: []ObjectRef{service, service}, want: "twice"},
		"without a name":        {declares: []ObjectRef{{APIVersion: "v1", Kind: "Service"}}, want: "missing"},
		"a pod":                 {declares: []ObjectRef{{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: "x"}}, want: "not a component's to own"},
		"the API":               {declares: []ObjectRef{{APIVersion: "v1", Kind: "Service", Namespace: "default", Name: "kubernetes"}}, want: "the API itself"},
		"a definition": {declares: []ObjectRef{{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition", Name: "as.example.com"}},
			want: "must be known before"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Info{Kind: "addon", Name: "x", Version: "1", Summary: "x", Scope: NodeScope, Declares: tt.declares}.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestCheckOwned(t *testing.T) {
	info := Info{Declares: []ObjectRef{{APIVersion: "v1", Kind: "Service", Namespace: "kube-system", Name: "mine"}}}
	mine := json.RawMessage(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"kube-system","name":"mine"}}`)
	for name, tt := range map[string]struct {
		objects []json.RawMessage
		want    string
	}{
		"what it declares": {objects: []json.RawMessage{mine}},
		"nothing":          {},
		"twice":            {objects: []json.RawMessage{mine, mine}, want: "twice"},
		"another's":        {objects: []json.RawMessage{json.RawMessage(strings.Replace(string(mine), "mine", "kube-dns", 1))}, want: "not among those"},
		"another version":  {objects: []json.RawMessage{json.RawMessage(strings.Replace(string(mine), `"v1"`, `"v2"`, 1))}, want: "not among those"},
		"addresses": {objects: []json.RawMessage{json.RawMessage(strings.Replace(string(mine), `{"api`, `{"spec":{"externalIPs":["192.0.2.1"]},"api`, 1))},
			want: "externalIPs"},
		"no JSON": {objects: []json.RawMessage{json.RawMessage("{")}, want: "want a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			err := info.CheckOwned(tt.objects)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
