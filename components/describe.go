package components

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

// Describe says in words for an operator what a component is and what it asks for.
func Describe(e Entry) string {
	var b strings.Builder
	i := e.Info
	fmt.Fprintf(&b, "%s %s: %s\n", i.ID(), i.Version, i.Summary)
	fmt.Fprintf(&b, "  file          %s\n  sha256        %s\n", e.Executable(), e.SHA256)
	fmt.Fprintf(&b, "  runs          %s\n", map[sdk.Scope]string{
		sdk.NodeScope: "on every node", sdk.ServerScope: "on every server"}[i.Scope])
	fmt.Fprintf(&b, "  as            %s\n", describeUser(i))
	if c := i.Privileges.Capabilities; len(c) > 0 && !isRuntime(i) {
		fmt.Fprintf(&b, "  may           %s\n", strings.Join(c, ", "))
	}
	fmt.Fprintf(&b, "  memory        %s\n", limitText(i.Limits.MemoryBytes, func(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }))
	fmt.Fprintf(&b, "  cpu           %s\n", limitText(i.Limits.CPUMilli, func(n int64) string { return fmt.Sprintf("%d.%03d cores", n/1000, n%1000) }))
	if len(i.Requires) > 0 {
		fmt.Fprintf(&b, "  waits for     %s\n", joinRequirements(i.Requires))
	}
	for n, r := range i.Rules {
		fmt.Fprintf(&b, "  %-13s %s\n", head(n, "API rights"), describeRule(r))
	}
	if len(i.Rules) == 0 {
		fmt.Fprintf(&b, "  API rights    none\n")
	}
	for n, service := range i.Services {
		if i.ServingCertificate {
			service += ", with a certificate for its names"
		}
		fmt.Fprintf(&b, "  %-13s %s\n", head(n, "serves"), service)
	}
	for n, object := range i.Objects {
		fmt.Fprintf(&b, "  %-13s %s\n", head(n, "owns"), describeObject(object))
	}
	for n, d := range i.Declares {
		name := strings.TrimPrefix(d.Namespace+"/"+d.Name, "/")
		fmt.Fprintf(&b, "  %-13s %s %s, by its configuration\n", head(n+len(i.Objects), "owns"), d.Kind, name)
	}
	for n, image := range i.Images {
		fmt.Fprintf(&b, "  %-13s %s\n", head(n, "pulls images"), image)
	}
	for n, c := range i.Commands {
		fmt.Fprintf(&b, "  %-13s k3m %s: %s\n", head(n, "commands"), c.Name, c.Summary)
	}
	return b.String()
}

func head(n int, title string) string {
	if n > 0 {
		return ""
	}
	return title
}

func describeUser(i sdk.Info) string {
	switch {
	case isRuntime(i):
		return "root with all that k3m may do, since pods are its children"
	case i.Privileges.Root:
		return "root (user 0): it can read and change all files of root's on the host"
	}
	return "a user of its own"
}

func limitText(n int64, format func(int64) string) string {
	if n == 0 {
		return "no limit"
	}
	return "at most " + format(n)
}

// describeObject names a Kubernetes object: "Service kube-system/kube-dns".
func describeObject(raw json.RawMessage) string {
	var o struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return "an object that can't be read" // sdk.Info.Validate lets none through
	}
	return o.Kind + " " + strings.TrimPrefix(o.Metadata.Namespace+"/"+o.Metadata.Name, "/")
}

func describeRule(r sdk.Rule) string {
	verbs := strings.Join(r.Verbs, ", ")
	if slices.Contains(r.Verbs, "*") {
		verbs = "do anything with"
	}
	if len(r.NonResourceURLs) > 0 {
		return verbs + " " + strings.Join(r.NonResourceURLs, ", ")
	}
	var what []string
	for _, group := range r.APIGroups {
		for _, resource := range r.Resources {
			what = append(what, strings.TrimSuffix(cmp.Or(resource, "*")+"."+group, "."))
		}
	}
	text := verbs + " " + strings.Join(what, ", ")
	if len(r.ResourceNames) > 0 {
		text += " named " + strings.Join(r.ResourceNames, ", ")
	}
	return text
}
