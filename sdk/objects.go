package sdk

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ownable are the kinds whose objects a component may own, with their API groups: what shows it
// to the cluster. What runs as pods, holds credentials or gives rights is not among them: a
// server's core writes the objects, with rights that no component has, and Rules, Privileges and
// Images are the way to ask for more.
var ownable = map[string]string{
	"Service": "", "ConfigMap": "", "Namespace": "",
	"StorageClass": "storage.k8s.io", "CSIDriver": "storage.k8s.io",
	"IngressClass": "networking.k8s.io", "GatewayClass": "gateway.networking.k8s.io",
	"PriorityClass": "scheduling.k8s.io", "RuntimeClass": "node.k8s.io",
	"APIService": "apiregistration.k8s.io", "CustomResourceDefinition": "apiextensions.k8s.io",
}

// apiService is the Kubernetes API, "<namespace>/<name>".
const apiService = "default/kubernetes"

// builtInGroups are those of Kubernetes and k3m that have a dot in their name; no group without
// one is a component's either. Who serves such a group gets what all others write there.
var builtInGroups = strings.Fields(`
admissionregistration.k8s.io apiextensions.k8s.io apiregistration.k8s.io authentication.k8s.io authorization.k8s.io
certificates.k8s.io coordination.k8s.io discovery.k8s.io events.k8s.io flowcontrol.apiserver.k8s.io
internal.apiserver.k8s.io networking.k8s.io node.k8s.io rbac.authorization.k8s.io resource.k8s.io scheduling.k8s.io
storage.k8s.io storagemigration.k8s.io k3m.io`)

// object is what is checked of a Kubernetes object. Keys are compared as the API does it, case
// and all, which encoding/json does in maps alone.
type object struct {
	apiVersion                   string
	group, kind, namespace, name string
	spec                         map[string]any
}

func readObject(raw json.RawMessage) (o object, err error) {
	var all map[string]any
	if len(raw) > maxObject {
		return o, fmt.Errorf("it is larger than %d bytes", maxObject)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return o, fmt.Errorf("want a JSON object: %w", err)
	}
	metadata, _ := all["metadata"].(map[string]any)
	apiVersion, _ := all["apiVersion"].(string)
	o.apiVersion = apiVersion
	o.kind, _ = all["kind"].(string)
	o.name, _ = metadata["name"].(string)
	o.namespace, _ = metadata["namespace"].(string)
	o.spec, _ = all["spec"].(map[string]any)
	if apiVersion == "" || o.kind == "" || o.name == "" {
		return o, fmt.Errorf("apiVersion, kind or metadata.name is missing")
	}
	if group, _, named := strings.Cut(apiVersion, "/"); named {
		o.group = group
	}
	for _, word := range []string{apiVersion, o.kind, o.namespace, o.name} {
		if strings.Contains(word, "$(") {
			return o, fmt.Errorf("%.80q: names hold no placeholders", word)
		}
	}
	return o, nil
}

func (i Info) validateObjects() error {
	if len(i.Objects) > maxItems {
		return fmt.Errorf("objects: more than %d entries", maxItems)
	}
	var objects []object
	defined := map[string]bool{} // "<group>/<kind>" by the component's own definitions
	for n, raw := range i.Objects {
		o, err := readObject(raw)
		if err != nil {
			return fmt.Errorf("objects[%d]: %w", n, err)
		}
		if objects = append(objects, o); o.is("CustomResourceDefinition") {
			group, kind := o.defines()
			defined[group+"/"+kind] = true
		}
	}
	for n, o := range objects {
		if err := o.validate(defined); err != nil {
			return fmt.Errorf("objects[%d]: %s %s: %w", n, o.kind, o.name, err)
		}
	}
	return i.validateDeclares(defined)
}

// validateDeclares judges the names alone; CheckOwned judges what comes under them.
func (i Info) validateDeclares(defined map[string]bool) error {
	if len(i.Declares) > maxItems {
		return fmt.Errorf("declares: more than %d entries", maxItems)
	}
	for n, d := range i.Declares {
		o := d.object()
		_, known := ownable[d.Kind]
		switch {
		case checkWord("declares: apiVersion", d.APIVersion) != nil || checkWord("declares: name", d.Name) != nil || len(d.Namespace) > maxWord:
			return fmt.Errorf("declares[%d]: apiVersion or name is missing or malformed", n)
		case slices.Contains(i.Declares[:n], d):
			return fmt.Errorf("declares %s %s twice", d.Kind, d.Name)
		case known && (o.is("APIService") || o.is("CustomResourceDefinition")):
			return fmt.Errorf("declares %s %s: what is served in the API must be known before the component runs; put it in objects", d.Kind, d.Name)
		}
		if err := o.validate(defined); err != nil {
			return fmt.Errorf("declares %s %s: %w", d.Kind, d.Name, err)
		}
	}
	return nil
}

// object is what a name tells of its object.
func (r ObjectRef) object() object {
	group, _, named := strings.Cut(r.APIVersion, "/")
	if !named {
		group = ""
	}
	return object{group: group, kind: r.Kind, namespace: r.Namespace, name: r.Name}
}

// CheckOwned says why the component may not own objects that it has handed to Host.Own; nil if
// it may.
func (i Info) CheckOwned(objects []json.RawMessage) error {
	seen := map[ObjectRef]bool{}
	for n, raw := range objects {
		o, err := readObject(raw)
		if err != nil {
			return fmt.Errorf("objects[%d]: %w", n, err)
		}
		ref := ObjectRef{APIVersion: o.apiVersion, Kind: o.kind, Namespace: o.namespace, Name: o.name}
		if !slices.Contains(i.Declares, ref) {
			return fmt.Errorf("objects[%d]: %s %s (%s) is not among those that its info declares", n, o.kind, o.name, o.apiVersion)
		}
		if seen[ref] {
			return fmt.Errorf("objects[%d]: %s %s is there twice", n, o.kind, o.name)
		}
		seen[ref] = true
		if err := o.drawsNothing(); err != nil {
			return fmt.Errorf("objects[%d]: %s %s: %w", n, o.kind, o.name, err)
		}
	}
	return nil
}

// drawsNothing refuses a Service that takes traffic for addresses of its own choice: every node
// would hand it over, whoever's the addresses are.
func (o object) drawsNothing() error {
	if addresses, given := o.spec["externalIPs"]; o.is("Service") && given && addresses != nil {
		return fmt.Errorf("spec.externalIPs draws the traffic of addresses that may be anybody's, and is not a component's to set")
	}
	return nil
}

// is says whether an object is of a kind of ownable.
func (o object) is(kind string) bool { return o.kind == kind && o.group == ownable[kind] }

// defines is what a CustomResourceDefinition defines.
func (o object) defines() (group, kind string) {
	group, _ = o.spec["group"].(string)
	names, _ := o.spec["names"].(map[string]any)
	kind, _ = names["kind"].(string)
	return group, kind
}

// validate refuses what would give a component more than it asks for elsewhere in its Info.
func (o object) validate(defined map[string]bool) error {
	group, known := ownable[o.kind]
	switch {
	case (!known || group != o.group) && !defined[o.group+"/"+o.kind]:
		return fmt.Errorf("not a component's to own; allowed are %s, and the kinds that its own CustomResourceDefinitions define",
			strings.Join(sortedKeys(ownable), ", "))
	case o.is("Service") && o.namespace+"/"+o.name == apiService:
		return fmt.Errorf("it is the API itself")
	case o.drawsNothing() != nil:
		return o.drawsNothing()
	case o.is("ConfigMap") && (o.name == "kube-root-ca.crt" || o.namespace == "kube-system" && o.name == "extension-apiserver-authentication"):
		return fmt.Errorf("it says whom the cluster trusts, and is not a component's to own")
	case o.is("Namespace") && (o.name == "default" || strings.HasPrefix(o.name, "kube-")):
		return fmt.Errorf("it is the cluster's, and not a component's to own")
	case o.is("APIService") || o.is("CustomResourceDefinition"):
		served, _ := o.spec["group"].(string)
		if !strings.Contains(served, ".") || strings.Contains(served, "$(") || slices.Contains(builtInGroups, served) {
			return fmt.Errorf("the API group %.80q is not a component's to serve", served)
		}
	}
	return nil
}
