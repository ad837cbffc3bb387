// Package pathpattern says how the directory of a volume is called: a small, safe part of
// Go's templates. It is a package of its own so that it can be fuzzed by itself.
package pathpattern

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

const (
	// Default is how k3s and the local-path-provisioner call a volume's directory.
	Default = "{{ .PVName }}_{{ .PVC.Namespace }}_{{ .PVC.Name }}"
	// maxPattern bounds a pattern, maxElement a file name (NAME_MAX of Linux), in bytes.
	maxPattern = 512
	maxElement = 255
)

// Names are what a pattern may be made of. All of them are names of Kubernetes objects,
// which hold no slash and don't begin with a dot. Labels and annotations are left out:
// who makes a claim chooses them, and so would choose the directory.
type Names struct {
	PVC      Claim
	PVName   string
	NodeName string
}

// Claim are the names of a PersistentVolumeClaim.
type Claim struct{ Namespace, Name, UID string }

var (
	patternFields = []string{".PVC.Namespace", ".PVC.Name", ".PVC.UID", ".PVName", ".NodeName"}
	patternText   = regexp.MustCompile(`^[A-Za-z0-9._/@+=,-]*$`)
	// fieldMarks stand for the fields in the shape of a pattern; separated finds namespace and
	// name, in either order, with something between them that is in no namespace's name.
	// Without it, "a" and "b-c" would be where "a-b" and "c" are.
	fieldMarks = map[string]byte{".PVC.Namespace": 1, ".PVC.Name": 2, ".PVC.UID": 3, ".PVName": 4, ".NodeName": 5}
	separated  = regexp.MustCompile(`\x01[^\x02]*[._/@+=,][^\x02]*\x02|\x02[^\x01]*[._/@+=,][^\x01]*\x01`)
)

// Pattern is a checked path pattern: the form of Go's templates, of which only text and
// fields are taken, so that it always ends, gives the same number of elements for all
// volumes (no volume can lie inside another one), and a different path for each.
type Pattern struct{ template *template.Template }

// Parse checks a pattern.
func Parse(text string) (*Pattern, error) {
	if len(text) > maxPattern {
		return nil, fmt.Errorf("%d bytes are more than the %d that are allowed", len(text), maxPattern)
	}
	t, err := template.New("pathPattern").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("not a template: %w", err)
	}
	if t.Tree == nil || len(t.Root.Nodes) == 0 || len(t.Templates()) > 1 {
		return nil, errors.New("want a path of the fields " + strings.Join(patternFields, ", "))
	}
	var used []string
	var shape strings.Builder // the pattern with a letter for each field
	for _, node := range t.Root.Nodes {
		switch node := node.(type) {
		case *parse.TextNode:
			shape.Write(node.Text)
			if !patternText.Match(node.Text) {
				return nil, fmt.Errorf("%q: outside of {{ }} only letters, digits and . _ / @ + = , - are allowed", node.Text)
			}
		case *parse.ActionNode:
			field := node.Pipe.String()
			if !slices.Contains(patternFields, field) {
				return nil, fmt.Errorf("{{ %s }} is not one of the fields %s", field, strings.Join(patternFields, ", "))
			}
			used = append(used, field)
			shape.WriteByte(fieldMarks[field])
		default:
			return nil, fmt.Errorf("%s: only the fields %s are allowed", node, strings.Join(patternFields, ", "))
		}
	}
	has := func(field string) bool { return slices.Contains(used, field) }
	if !has(".PVName") && !has(".PVC.UID") && !separated.MatchString(shape.String()) {
		return nil, errors.New("two claims could get the same directory: name .PVName, or .PVC.Namespace and .PVC.Name with a / or _ between them")
	}
	p := &Pattern{template: t}
	if _, err := p.Render(Names{PVC: Claim{Namespace: "n", Name: "c", UID: "u"}, PVName: "pvc-u", NodeName: "node"}); err != nil {
		return nil, err
	}
	return p, nil
}

// Render returns the path of a volume's directory, relative to the base. Elements that are
// longer than a file name may be are cut, and end in a digest of what they were.
func (p *Pattern) Render(n Names) (string, error) {
	for _, name := range []string{n.PVC.Namespace, n.PVC.Name, n.PVC.UID, n.PVName, n.NodeName} {
		if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
			return "", fmt.Errorf("%q can't be part of a path", name)
		}
	}
	var text strings.Builder
	if err := p.template.Execute(&text, n); err != nil {
		return "", fmt.Errorf("render the path pattern: %w", err)
	}
	path := text.String()
	elements := strings.Split(path, "/")
	for i, element := range elements {
		if element == "" || element[0] == '.' {
			return "", fmt.Errorf("%q is not a path below the base: no element may be empty or begin with a dot", path)
		}
		if len(element) > maxElement {
			sum := sha256.Sum256([]byte(element))
			digest := "-" + hex.EncodeToString(sum[:16])
			elements[i] = element[:maxElement-len(digest)] + digest
		}
	}
	path = strings.Join(elements, "/")
	if !filepath.IsLocal(path) || filepath.Clean(path) != path {
		return "", fmt.Errorf("%q is not a path below the base", path)
	}
	return path, nil
}
