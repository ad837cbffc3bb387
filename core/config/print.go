package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// effective are the values of options that nobody wrote down; those of options that are not here
// are not set.
var effective = map[string]func(c *Config) []string{
	"data-dir":                   func(c *Config) []string { return []string{c.DataDir} },
	"run-dir":                    func(c *Config) []string { return []string{c.RunDir} },
	"node-name":                  func(c *Config) []string { return []string{c.NodeName} },
	"write-kubeconfig":           func(c *Config) []string { return []string{c.WriteKubeconfig} },
	"write-kubeconfig-mode":      func(c *Config) []string { return []string{fmt.Sprintf("%04o", c.KubeconfigMode)} },
	"cluster-cidr":               func(c *Config) []string { return eachText(c.ClusterCIDRs) },
	"service-cidr":               func(c *Config) []string { return eachText(c.ServiceCIDRs) },
	"service-node-port-range":    func(c *Config) []string { return []string{c.NodePorts.String()} },
	"cluster-dns":                func(c *Config) []string { return eachText(c.ClusterDNS) },
	"cluster-domain":             func(c *Config) []string { return []string{c.ClusterDomain} },
	"https-listen-port":          func(c *Config) []string { return []string{strconv.Itoa(c.HTTPSPort)} },
	"default-local-storage-path": func(c *Config) []string { return []string{c.LocalStoragePath} },
	"log-format":                 func(c *Config) []string { return []string{c.LogFormat} },
}

func eachText[T netip.Addr | netip.Prefix](items []T) []string {
	var all []string
	for _, item := range items {
		all = append(all, fmt.Sprint(item))
	}
	return all
}

// sourceColumn is where the comments begin that say where a value came from.
const sourceColumn = 48

// Print writes the merged configuration as a configuration file that says the same, with a
// comment behind each value that tells where it was found. Secrets are left out.
func (c *Config) Print(w io.Writer) error {
	var b bytes.Buffer
	for i := range options {
		if o := &options[i]; o.name != "config" {
			c.printOption(&b, o)
		}
	}
	if len(c.Components) > 0 {
		b.WriteString("components:\n")
	}
	for _, id := range slices.Sorted(maps.Keys(c.Components)) {
		if err := c.Components[id].print(&b, id); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (c *Config) printOption(b *bytes.Buffer, o *option) {
	values, given := c.settings[o.name]
	switch {
	case given && o.secret:
		printLine(b, "# "+o.name+": not shown", values[0].Source)
		return
	case !given:
		values = nil
		if value := effective[o.name]; value != nil {
			for _, text := range value(c) {
				values = append(values, Value{text, "default"})
			}
		} else if o.boolean {
			values = []Value{{"false", "default"}}
		} else {
			printLine(b, "# "+o.name+": not set", "default")
			return
		}
	}
	switch {
	case !o.list:
		printLine(b, o.name+": "+o.scalar(values[len(values)-1].Text), values[len(values)-1].Source)
	case len(values) == 0:
		printLine(b, o.name+": []", "emptied")
	default:
		b.WriteString(o.name + ":\n")
		for _, v := range values {
			printLine(b, "  - "+o.scalar(v.Text), v.Source)
		}
	}
}

// scalar is a text as YAML; one that is read back as it is needs no quotes.
func (o *option) scalar(text string) string {
	var back yaml.Node
	if o.boolean || yaml.Unmarshal([]byte("k: "+text), &back) == nil && plainScalar(&back, text) {
		return text
	}
	return quote(text)
}

// plainScalar tells whether a document is one key with just this text.
func plainScalar(document *yaml.Node, text string) bool {
	if text == "" || strings.ContainsAny(text, "#\n") || len(document.Content) != 1 || len(document.Content[0].Content) != 2 {
		return false
	}
	value := document.Content[0].Content[1]
	return value.Kind == yaml.ScalarNode && value.Tag != "!!null" && value.Style == 0 && value.Anchor == "" && value.Value == text
}

// quote is a text in double quotes; Go's escapes are among YAML's.
func quote(text string) string { return strconv.Quote(text) }

func printLine(b *bytes.Buffer, text, source string) {
	fmt.Fprintf(b, "%-*s # %s\n", sourceColumn, text, oneLine(source))
}

// print writes a component's block.
func (c Component) print(b *bytes.Buffer, id string) error {
	decoder := json.NewDecoder(bytes.NewReader(c.Raw))
	decoder.UseNumber()
	var values map[string]any
	if err := decoder.Decode(&values); err != nil {
		return fmt.Errorf("print the block of component %s: %w", id, err)
	}
	if len(values) == 0 {
		printLine(b, "  "+quote(id)+": {}", c.Source)
		return nil
	}
	printLine(b, "  "+quote(id)+":", c.Source)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		c.printValue(b, "    ", quote(key)+":", key, values[key])
	}
	return nil
}

// printValue writes "<indent><lead> <value>", over several lines if it is an object or a list.
func (c Component) printValue(b *bytes.Buffer, indent, lead, path string, value any) {
	switch value := value.(type) {
	case map[string]any:
		if len(value) == 0 {
			break
		}
		printLine(b, indent+lead, c.At(path))
		for _, key := range slices.Sorted(maps.Keys(value)) {
			c.printValue(b, indent+"  ", quote(key)+":", path+"."+key, value[key])
		}
		return
	case []any:
		if len(value) == 0 {
			break
		}
		printLine(b, indent+lead, c.At(path))
		for i, item := range value {
			c.printValue(b, indent+"  ", "-", fmt.Sprintf("%s[%d]", path, i), item)
		}
		return
	}
	text, _ := json.Marshal(value) // it came from JSON
	printLine(b, indent+lead+" "+string(text), c.At(path))
}
