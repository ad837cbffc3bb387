package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile is the most bytes that a configuration file may have.
const maxFile = 1 << 20

// fileValues is what one file, or several merged ones, say.
type fileValues struct {
	values     map[string][]Value
	appended   map[string][]Value // of `key+:`, to be added to what weaker files say
	components map[string]*block
}

func newFileValues() fileValues {
	return fileValues{values: map[string][]Value{}, appended: map[string][]Value{}, components: map[string]*block{}}
}

// parseFile reads the text of a configuration file; name is for error messages.
func parseFile(name string, text []byte) (fileValues, error) {
	parsed := newFileValues()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return parsed, nil
		}
		return parsed, syntaxError(name, text, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return parsed, &Error{name, "holds more than one YAML document; a configuration is one"}
	}
	place := func(n *yaml.Node) string { return fmt.Sprintf("%s:%d:%d", name, n.Line, n.Column) }
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		if root.Tag == "!!null" {
			return parsed, nil
		}
		return parsed, &Error{place(root), "a configuration is a list of keys and values, such as `enable: [ingress=nginx]`"}
	}
	seen := map[string]string{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if first, ok := seen[key.Value]; ok {
			return parsed, &Error{place(key), fmt.Sprintf("key %q stands at %s already", key.Value, first)}
		}
		seen[key.Value] = place(key)
		var err error
		if key.Value == "components" {
			err = parseComponents(&parsed, value, place)
		} else {
			err = parseOption(&parsed, key, value, place)
		}
		if err != nil {
			return parsed, err
		}
	}
	return parsed, nil
}

// yamlLine is the line of a mistake that the YAML parser found; it does not tell the column.
var yamlLine = regexp.MustCompile(`^line (\d+): `)

// syntaxError puts the place of a mistake in front, with the column where the line's text begins.
func syntaxError(name string, text []byte, err error) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if at := yamlLine.FindStringSubmatch(message); at != nil {
		number, _ := strconv.Atoi(at[1]) // digits
		column := 1
		if lines := bytes.Split(text, []byte("\n")); number <= len(lines) {
			line := lines[number-1]
			column += len(line) - len(bytes.TrimLeft(line, " "))
		}
		name = fmt.Sprintf("%s:%d:%d", name, number, column)
		message = message[len(at[0]):]
	}
	return &Error{name, oneLine(message) + "; this is not YAML"}
}

// parseOption reads `key: value`, or `key+: value` of a list.
func parseOption(parsed *fileValues, key, value *yaml.Node, place func(*yaml.Node) string) error {
	name, appends := strings.CutSuffix(key.Value, "+")
	o := lookupOption(name)
	if o == nil || o.name == "config" {
		return &Error{place(key), fmt.Sprintf("unknown key %q%s", key.Value, DidYouMean(name, fileKeys()))}
	}
	if appends && !o.list {
		return &Error{place(key), fmt.Sprintf("%q takes one text, to which nothing can be added; write `%s:`", name, name)}
	}
	values, err := scalars(o, value, place)
	if err != nil {
		return err
	}
	switch {
	case appends:
		parsed.appended[name] = values
	case len(values) > 0 || o.list && value.Kind == yaml.SequenceNode: // an empty list empties it
		parsed.values[name] = values
	}
	return nil
}

// fileKeys are what a file may hold.
func fileKeys() []string {
	known := []string{"components"}
	for _, o := range options {
		if o.name != "config" {
			known = append(known, o.name)
		}
	}
	return known
}

func scalars(o *option, n *yaml.Node, place func(*yaml.Node) string) ([]Value, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return []Value{{n.Value, place(n)}}, nil
	case n.Kind == yaml.SequenceNode && o.list:
		var values []Value
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return nil, &Error{place(item), fmt.Sprintf("%q takes a list of plain texts", o.name)}
			}
			values = append(values, Value{item.Value, place(item)})
		}
		return values, nil
	case o.list:
		return nil, &Error{place(n), fmt.Sprintf("%q takes a text or a list of texts", o.name)}
	}
	return nil, &Error{place(n), fmt.Sprintf("%q takes one text", o.name)}
}
