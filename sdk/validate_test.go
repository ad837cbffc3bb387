package sdk

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func exampleInfo() Info {
	return Info{
		Kind: "dns", Name: "example", Version: "1.2.3", Summary: "answers", Scope: NodeScope,
		Requires:   []Requirement{RequiresAPI, "cni"},
		Rules:      []Rule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"services"}}},
		Privileges: Privileges{Capabilities: []string{"CAP_NET_BIND_SERVICE"}},
		Limits:     Limits{MemoryBytes: 64 << 20},
		Images:     []string{"registry.k3m.io:5000/pause:1@sha256:0123"},
		Commands:   []Command{{Name: "dig", Summary: "asks"}},
		Abilities:  []string{AbilityCommand},
	}
}

func TestValidateAcceptsAGoodInfo(t *testing.T) {
	if err := exampleInfo().Validate(); err != nil {
		t.Error(err)
	}
}

const aService = `{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"acme","name":"a"}}`

func objects(texts ...string) (out []json.RawMessage) {
	for _, text := range texts {
		out = append(out, json.RawMessage(text))
	}
	return out
}

func named(apiVersion, kind, namespace, name string) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"namespace":%q,"name":%q}}`, apiVersion, kind, namespace, name)
}

// serving is an object that brings an API group, and maybe a kind in it.
func serving(apiVersion, kind, group, defined string) string {
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":"a"},"spec":{"group":%q,"names":{"kind":%q}}}`, apiVersion, kind, group, defined)
}

func TestValidateAcceptsObjects(t *testing.T) {
	i := exampleInfo()
	i.Objects = objects(aService, named("v1", "ConfigMap", "acme", "a"), named("v1", "Namespace", "", "acme"),
		named("storage.k8s.io/v1", "StorageClass", "", "a"), named("storage.k8s.io/v1", "CSIDriver", "", "a"),
		named("networking.k8s.io/v1", "IngressClass", "", "a"), named("gateway.networking.k8s.io/v1", "GatewayClass", "", "a"),
		named("scheduling.k8s.io/v1", "PriorityClass", "", "a"), named("node.k8s.io/v1", "RuntimeClass", "", "a"),
		serving("apiregistration.k8s.io/v1", "APIService", "metrics.k8s.io", ""), named("acme.example.org/v1", "Widget", "a", "a"),
		serving("apiextensions.k8s.io/v1", "CustomResourceDefinition", "acme.example.org", "Widget"))
	if err := i.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Info)
		want   string
	}{
		{"an empty kind", func(i *Info) { i.Kind = "" }, `kind "" does not match`},
		{"a path for a name", func(i *Info) { i.Name = "../../etc" }, "does not match"},
		{"a name of 32 letters", func(i *Info) { i.Name = strings.Repeat("a", 32) }, "does not match"},
		{"no version", func(i *Info) { i.Version = "" }, "version is empty"},
		{"a version of two words", func(i *Info) { i.Version = "1 2" }, "white space"},
		{"a summary of two lines", func(i *Info) { i.Summary = "a\nb" }, "don't print"},
		{"an escape sequence", func(i *Info) { i.Summary = "\x1b[2J" }, "don't print"},
		{"text that is no UTF-8", func(i *Info) { i.Summary = "\xff" }, "don't print"},
		{"an endless summary", func(i *Info) { i.Summary = strings.Repeat("a", 201) }, "longer than 200"},
		{"an unknown scope", func(i *Info) { i.Scope = "cluster" }, `neither "node" nor "server"`},
		{"its own kind as a requirement", func(i *Info) { i.Requires = append(i.Requires, "dns") }, "its own kind"},
		{"a requirement twice", func(i *Info) { i.Requires = append(i.Requires, "cni") }, `"cni" twice`},
		{"rules without the API", func(i *Info) { i.Requires = nil }, `does not require "api"`},
		{"a rule without a verb", func(i *Info) { i.Rules[0].Verbs = nil }, "rules[0]: names no verb"},
		{"a rule without a resource", func(i *Info) { i.Rules[0].Resources = nil }, "no resource"},
		{"a rule of both sorts", func(i *Info) { i.Rules[0].NonResourceURLs = []string{"/healthz"} }, "make it two rules"},
		{"a misspelled capability", func(i *Info) { i.Privileges.Capabilities = []string{"CAP_NET_ADMN"} }, "did you mean CAP_NET_ADMIN?"},
		{"a capability twice", func(i *Info) { i.Privileges.Capabilities = []string{"CAP_CHOWN", "CAP_CHOWN"} }, "CAP_CHOWN twice"},
		{"a negative limit", func(i *Info) { i.Limits.CPUMilli = -1 }, "negative"},
		{"an image with a space", func(i *Info) { i.Images = []string{"a b"} }, "no image reference"},
		{"a schema that is no object", func(i *Info) { i.ConfigSchema = json.RawMessage(`{"type":"string"}`) }, "a configuration block is a map"},
		{"a schema with a keyword that is not checked", func(i *Info) { i.ConfigSchema = json.RawMessage(`{"type":"object","oneOf":[]}`) }, `unknown key "oneOf"`},
		{"a schema with a bad pattern", func(i *Info) {
			i.ConfigSchema = json.RawMessage(`{"type":"object","properties":{"a":{"pattern":"["}}}`)
		}, "a: error parsing regexp"},
		{"a schema as deep as a well", func(i *Info) {
			i.ConfigSchema = json.RawMessage(strings.Repeat(`{"items":`, 40) + "{}" + strings.Repeat("}", 40))
		}, "nested more than 32 deep"},
		{"a required key that does not exist", func(i *Info) {
			i.ConfigSchema = json.RawMessage(`{"type":"object","required":["a"]}`)
		}, `requires "a", which is no property`},
		{"commands that nobody serves", func(i *Info) { i.Abilities = nil }, "implement Commander"},
		{"a command twice", func(i *Info) { i.Commands = append(i.Commands, i.Commands[0]) }, `"dig" twice`},
		{"the API as its Service", func(i *Info) { i.Services = []string{"default/kubernetes"} }, "the API itself"},
		{"an object that is a list", func(i *Info) { i.Objects = objects(`[]`) }, "objects[0]: want a JSON object"},
		{"an object without a name", func(i *Info) { i.Objects = objects(`{"apiVersion":"v1","kind":"ConfigMap"}`) }, "metadata.name is missing"},
		{"a DaemonSet", func(i *Info) { i.Objects = objects(aService, named("apps/v1", "DaemonSet", "a", "a")) },
			"objects[1]: DaemonSet a: not a component's to own; allowed are APIService, CSIDriver, ConfigMap,"},
		{"a Secret", func(i *Info) { i.Objects = objects(named("v1", "Secret", "kube-system", "a")) }, "not a component's to own"},
		{"a Pod", func(i *Info) { i.Objects = objects(named("v1", "Pod", "kube-system", "a")) }, "not a component's to own"},
		{"a ServiceAccount", func(i *Info) { i.Objects = objects(named("v1", "ServiceAccount", "kube-system", "a")) }, "not a component's to own"},
		{"a list of objects", func(i *Info) { i.Objects = objects(named("v1", "List", "", "a")) }, "not a component's to own"},
		{"rights", func(i *Info) {
			i.Objects = objects(named("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", "a"))
		}, "not a component's to own"},
		{"a Service of another group", func(i *Info) { i.Objects = objects(named("serving.knative.dev/v1", "Service", "a", "a")) }, "not a component's to own"},
		{"a kind that another spelling hides", func(i *Info) {
			i.Objects = objects(`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"a"},"Kind":"ConfigMap","APIVersion":"v1"}`)
		}, "DaemonSet a: not a component's to own"},
		{"the API's Service", func(i *Info) { i.Objects = objects(named("v1", "Service", "default", "kubernetes")) }, "the API itself"},
		{"whom the API server trusts", func(i *Info) {
			i.Objects = objects(named("v1", "ConfigMap", "kube-system", "extension-apiserver-authentication"))
		}, "whom the cluster trusts"},
		{"whom pods trust", func(i *Info) { i.Objects = objects(named("v1", "ConfigMap", "acme", "kube-root-ca.crt")) }, "whom the cluster trusts"},
		{"a placeholder in a name", func(i *Info) { i.Objects = objects(named("v1", "ConfigMap", "acme", "a-$(CLUSTER_DOMAIN)")) }, "no placeholders"},
		{"the cluster's namespace", func(i *Info) { i.Objects = objects(named("v1", "Namespace", "", "kube-system")) }, "it is the cluster's"},
		{"the core's API group", func(i *Info) { i.Objects = objects(serving("apiregistration.k8s.io/v1", "APIService", "", "")) }, "not a component's to serve"},
		{"the API group of rights", func(i *Info) {
			i.Objects = objects(serving("apiregistration.k8s.io/v1", "APIService", "rbac.authorization.k8s.io", ""))
		}, "not a component's to serve"},
		{"a DaemonSet as a kind of its own", func(i *Info) {
			i.Objects = objects(serving("apiextensions.k8s.io/v1", "CustomResourceDefinition", "apps", "DaemonSet"), named("apps/v1", "DaemonSet", "a", "a"))
		}, `the API group "apps" is not a component's to serve`},
		{"a kind of another's definition", func(i *Info) { i.Objects = objects(named("acme.example.org/v1", "Widget", "a", "a")) }, "not a component's to own"},
		{"another kind of its definition's group", func(i *Info) {
			i.Objects = objects(serving("apiextensions.k8s.io/v1", "CustomResourceDefinition", "acme.example.org", "Gadget"),
				named("acme.example.org/v1", "Widget", "a", "a"))
		}, "not a component's to own"},
		{"an endless list", func(i *Info) { i.Images = make([]string, 257) }, "more than 256 entries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := exampleInfo()
			c.change(&i)
			err := i.Validate()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestDifferences(t *testing.T) {
	record := exampleInfo()
	record.ConfigSchema = json.RawMessage(`{"type": "object"}`)
	t.Run("form and empty lists count for nothing", func(t *testing.T) {
		said := record
		said.ConfigSchema = json.RawMessage("{\n\t\"type\":\"object\"\n}")
		said.Abilities = append([]string{}, record.Abilities...)
		said.Rules = append([]Rule{}, record.Rules...)
		said.Rules[0].ResourceNames = []string{}
		if d := record.Differences(said); len(d) > 0 {
			t.Errorf("differences: %v", d)
		}
	})
	t.Run("each field that differs is named with both values", func(t *testing.T) {
		said := record
		said.Privileges.Root = true
		said.Images = nil
		d := strings.Join(record.Differences(said), "\n")
		want := `images: ["registry.k3m.io:5000/pause:1@sha256:0123"] -> none
privileges: {"capabilities":["CAP_NET_BIND_SERVICE"]} -> {"capabilities":["CAP_NET_BIND_SERVICE"],"root":true}`
		if d != want {
			t.Errorf("differences:\n%s\nwant:\n%s", d, want)
		}
	})
	t.Run("a schema that is no JSON", func(t *testing.T) {
		said := record
		said.ConfigSchema = json.RawMessage("{")
		if len(record.Differences(said)) != 1 {
			t.Errorf("differences: %v", record.Differences(said))
		}
	})
}

// TestCapabilitiesAreTheKernels compares with the running kernel's own bound.
func TestCapabilitiesAreTheKernels(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("/proc/sys/kernel", "cap_last_cap"))
	if err != nil {
		t.Skip(err)
	}
	if last := strings.TrimSpace(string(raw)); last != "40" {
		t.Skipf("the running kernel's last capability is %s", last)
	}
	if n := len(Capabilities()); n != 41 {
		t.Errorf("%d capabilities, the kernel has 41", n)
	}
}
