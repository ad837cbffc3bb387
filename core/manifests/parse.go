package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/core/objects"
)

// maxObjects is the most objects of one file.
const maxObjects = 5000

// Object is one object of a file.
type Object struct {
	*unstructured.Unstructured
	// Place is where it begins: "file:line".
	Place string
}

// Parse reads the objects of a file: YAML documents, or JSON. Lists are taken apart. Every mistake is
// told with the file's name and the line; a file with one has no objects.
func Parse(name string, text []byte) ([]Object, error) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("%s: it is no text: it holds a zero byte", name)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	var out []Object
	var errs []error
	places := map[string]string{}
	for _, d := range split(text) {
		found, err := d.objects(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, o := range found {
			ref := objects.ReferenceTo(o.Unstructured)
			ref.APIVersion = schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind).Group // of any version it is the same object
			key := fmt.Sprint(ref)
			if first, ok := places[key]; ok {
				errs = append(errs, fmt.Errorf("%s: %s stands at %s already", o.Place, title(o.Unstructured), first))
				continue
			}
			places[key] = o.Place
			out = append(out, o)
		}
		if len(out) > maxObjects {
			return nil, fmt.Errorf("%s: it holds more than %d objects: split it", name, maxObjects)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs[:min(len(errs), 5)]...)
	}
	slices.SortStableFunc(out, func(a, b Object) int { return objects.ByOrder(a.GetKind(), b.GetKind()) })
	return out, nil
}

// title names an object for people.
func title(o *unstructured.Unstructured) string {
	name := o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return o.GetKind() + " " + name
}

// document is one YAML document of a file.
type document struct {
	text []byte
	line int // of its first line, from 1
}

// split takes a file apart at its document markers, which are at the start of a line and nowhere else:
// not in a text of several lines either.
func split(text []byte) []document {
	var out []document
	start, begin := 1, 0
	end := func(line, until int) {
		out = append(out, document{text[begin:until], start})
		start = line
	}
	line := 0
	for at := 0; at < len(text); {
		line++
		next := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		row := bytes.TrimRight(text[at:next], "\r\n")
		if isMarker(row) {
			end(line+1, at)
			begin = next
			if rest := bytes.TrimSpace(row[3:]); len(rest) > 0 && rest[0] != '#' && row[0] == '-' { // `--- {kind: …}`
				begin, start = at+3, line
			}
		}
		at = next
	}
	end(line, len(text))
	return out
}

// isMarker tells whether a line begins or ends a document: `---` or `...`.
func isMarker(row []byte) bool {
	if !bytes.HasPrefix(row, []byte("---")) && !bytes.HasPrefix(row, []byte("...")) {
		return false
	}
	return len(row) == 3 || row[3] == ' ' || row[3] == '\t'
}

// yamlLine finds the line in the parser's words.
var yamlLine = regexp.MustCompile(`line (\d+)(: )?`)

// objects reads a document. One without content has none.
func (d document) objects(file string) ([]Object, error) {
	place := fmt.Sprintf("%s:%d", file, d.first())
	if d.empty() {
		return nil, nil
	}
	text, err := yaml.YAMLToJSONStrict(d.text)
	if err != nil {
		return nil, d.mistake(file, err)
	}
	if bytes.Equal(text, []byte("null")) {
		return nil, nil
	}
	if text[0] != '{' {
		return nil, fmt.Errorf("%s: an object is a list of keys and values, such as `kind: ConfigMap`", place)
	}
	o := &unstructured.Unstructured{}
	if err := readObject(o, text); err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return flatten(o, place, 0)
}

// flatten takes lists apart, and refuses what can't be an object.
func flatten(o *unstructured.Unstructured, place string, depth int) ([]Object, error) {
	items, isList := o.Object["items"].([]any)
	if !isList || !strings.HasSuffix(o.GetKind(), "List") || depth > 2 {
		if err := checkObject(o); err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		return []Object{{o, place}}, nil
	}
	var out []Object
	for i, item := range items {
		content, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: item %d of the list is no object", place, i+1)
		}
		found, err := flatten(&unstructured.Unstructured{Object: content}, place, depth+1)
		if err != nil {
			return nil, fmt.Errorf("%w (item %d of the list)", err, i+1)
		}
		out = append(out, found...)
	}
	return out, nil
}

// readObject reads JSON as Kubernetes does, with whole numbers as such.
func readObject(o *unstructured.Unstructured, text []byte) error {
	content := map[string]any{}
	if err := json.Unmarshal(text, &content); err != nil {
		return err
	}
	o.Object = content
	return nil
}

// checkObject says what an object lacks, in the words of who wrote it.
func checkObject(o *unstructured.Unstructured) error {
	for _, key := range []string{"apiVersion", "kind"} {
		if text, ok := o.Object[key].(string); !ok || text == "" {
			return fmt.Errorf("it has no %s", key)
		}
	}
	if _, err := schema.ParseGroupVersion(o.GetAPIVersion()); err != nil {
		return fmt.Errorf("apiVersion %q is not of the form group/version", o.GetAPIVersion())
	}
	metadata, ok := o.Object["metadata"].(map[string]any)
	if !ok {
		return errors.New("it has no metadata")
	}
	if _, ok := metadata["generateName"]; ok {
		return errors.New("metadata.generateName makes a new object each time: give it a metadata.name")
	}
	for key, needed := range map[string]bool{"name": true, "namespace": false} {
		value, there := metadata[key]
		text, isText := value.(string)
		if needed && (!isText || text == "") || there && !isText {
			return fmt.Errorf("metadata.%s is to be a text", key)
		}
	}
	for _, key := range []string{"labels", "annotations"} {
		value, there := metadata[key]
		if !there || value == nil {
			continue
		}
		pairs, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("metadata.%s is to be a list of keys and values", key)
		}
		for name, value := range pairs {
			if _, ok := value.(string); !ok {
				return fmt.Errorf("metadata.%s: the value of %q is to be a text: put it in quotes", key, name)
			}
		}
	}
	// What the API gives out; in a file it comes from `kubectl get -o yaml`, and applying it fails.
	for _, key := range []string{"managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"} {
		delete(metadata, key)
	}
	delete(o.Object, "status")
	return nil
}

// mistake gives the parser's words the file's line.
func (d document) mistake(file string, err error) error {
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: ")
	text = strings.Join(strings.Fields(strings.TrimPrefix(text, "unmarshal errors:")), " ")
	line := d.first()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, convErr := strconv.Atoi(m[1]); convErr == nil {
			line = d.line + max(n, 1) - 1
			text = strings.Replace(text, m[0], "", 1)
		}
	}
	return fmt.Errorf("%s:%d: %s", file, line, text)
}

// first is the line of the file where the document's content begins.
func (d document) first() int {
	line := d.line
	for row := range bytes.Lines(d.text) {
		if row = bytes.TrimSpace(row); len(row) > 0 && row[0] != '#' {
			return line
		}
		line++
	}
	return d.line
}

func (d document) empty() bool {
	for row := range bytes.Lines(d.text) {
		if row = bytes.TrimSpace(row); len(row) > 0 && row[0] != '#' && row[0] != '%' {
			return false
		}
	}
	return true
}
