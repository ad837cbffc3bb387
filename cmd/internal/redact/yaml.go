package redact

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxDepth bounds how deep a document is looked into.
const maxDepth = 100

// YAML takes out of configuration the values of keys that are called like secrets, the comments,
// and then what Text takes out.
func (r *Redactor) YAML(text []byte) ([]byte, error) {
	doc, values, err := strip(text)
	if err != nil || doc == nil {
		return nil, err
	}
	out, err := yaml.Marshal(doc)
	if err != nil {
		return nil, err
	}
	// What a name gave away can be there a second time without one.
	return []byte(r.Text(New(values).values.Replace(string(out)))), nil
}

// SecretsIn are the values in configuration that YAML takes out because of their names. They may
// be elsewhere too, without a name: in a log.
func SecretsIn(text []byte) ([]string, error) {
	_, values, err := strip(text)
	return values, err
}

func strip(text []byte) (*yaml.Node, []string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, nil, fmt.Errorf("it is not YAML: %w", err)
	}
	if doc.Kind == 0 { // empty
		return nil, nil, nil
	}
	var s stripper
	s.node(&doc, false, 0)
	return &doc, s.values, nil
}

type stripper struct{ values []string }

// node takes secrets out of a node and what is below it; secret says that it is one itself.
func (s *stripper) node(n *yaml.Node, secret bool, depth int) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	if depth > maxDepth {
		*n = yaml.Node{Kind: yaml.ScalarNode, Value: Mark}
		return
	}
	switch n.Kind {
	case yaml.ScalarNode:
		s.scalar(n, secret)
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			key.HeadComment, key.LineComment, key.FootComment = "", "", ""
			s.node(value, secret || IsSecretName(key.Value), depth+1)
		}
	case yaml.AliasNode: // its anchor is somewhere else in the document
		if secret {
			if n.Alias != nil && n.Alias.Kind == yaml.ScalarNode {
				s.collect(n.Alias.Value)
			}
			*n = yaml.Node{Kind: yaml.ScalarNode, Value: Mark}
		}
	default:
		for _, child := range n.Content {
			s.node(child, secret, depth+1)
		}
	}
}

func (s *stripper) scalar(n *yaml.Node, secret bool) {
	name, value, pair := strings.Cut(n.Value, "=") // an argument of a Kubernetes part
	switch {
	case secret:
		s.collect(n.Value)
		n.SetString(Mark)
	case pair && IsSecretName(name):
		s.collect(value)
		n.SetString(name + "=" + Mark)
	}
}

// collect takes note of a value, unless it says where a secret is.
func (s *stripper) collect(value string) {
	if value != "" && value != Mark && !strings.HasPrefix(value, "/") {
		s.values = append(s.values, value)
	}
}
