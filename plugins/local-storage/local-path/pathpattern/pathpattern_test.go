package pathpattern

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPattern(t *testing.T) {
	n := Names{PVC: Claim{Namespace: "team", Name: "data.db-0", UID: "u-1"}, PVName: "pvc-u-1", NodeName: "node-1"}
	for text, want := range map[string]string{
		Default:                                     "pvc-u-1_team_data.db-0",
		"{{ .PVC.Namespace }}/{{ .PVC.Name }}":      "team/data.db-0",
		"k3m/{{.NodeName}}/{{.PVC.UID}}":            "k3m/node-1/u-1",
		"{{.PVC.Name}}_{{.PVC.Namespace}}":          "data.db-0_team",
		"a-{{.PVName}}.b":                           "a-pvc-u-1.b",
		"{{- .PVC.Namespace }}/x/{{ .PVC.Name -}} ": "team/x/data.db-0",
	} {
		p, err := Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, err := p.Render(n); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                                     "want a path",
		"data":                                 "the same directory",
		"{{ .PVC.Name }}":                      "the same directory",
		"{{ .PVC.Namespace }}-{{ .PVC.Name }}": "the same directory",
		"{{ .PVC.Name }}{{ .PVC.Namespace }}":  "the same directory",
		"{{ .PVC.Namespace }}/{{ .NodeName }}": "the same directory",
		"../{{ .PVName }}":                     "begin with a dot",
		"a/../../{{ .PVName }}":                "begin with a dot",
		"/{{ .PVName }}":                       "empty",
		"{{ .PVName }}/":                       "empty",
		"a//{{ .PVName }}":                     "empty",
		".hidden/{{ .PVName }}":                "begin with a dot",
		"{{ .PVC.Labels }}/{{ .PVName }}":      "not one of the fields",
		`{{ index .PVC.Annotations "x" }}/{{ .PVName }}`:  "not one of the fields",
		`{{ printf "%s" .PVName }}`:                       "not one of the fields",
		"{{ range 1000000000 }}{{ end }}{{ .PVName }}":    "only the fields",
		"{{ if .PVName }}{{ .PVName }}{{ end }}":          "only the fields",
		`{{ define "x" }}{{ end }}{{ .PVName }}`:          "want a path",
		"{{ .PVName":                                      "not a template",
		"a b/{{ .PVName }}":                               "outside of {{ }}",
		"a\x00/{{ .PVName }}":                             "outside of {{ }}",
		"{{ .PVName }}" + strings.Repeat("a", maxPattern): "more than",
		"{{ .PVName.Foo }}":                               "not one of the fields",
		"{{ $x := .PVName }}{{ $x }}":                     "not one of the fields",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func TestPatternCutsLongNames(t *testing.T) {
	p, err := Parse(Default)
	if err != nil {
		t.Fatal(err)
	}
	long := func(end string) string {
		path, err := p.Render(Names{PVC: Claim{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("c", 252) + end, UID: "u"}, PVName: "pvc-u", NodeName: "n"})
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	if a, b := long("a"), long("b"); len(a) != maxElement || a == b {
		t.Errorf("%d bytes, %s and %s", len(a), a, b)
	}
}

// FuzzPattern: no pattern and no names lead out of the base, or to a path that hides.
func FuzzPattern(f *testing.F) {
	f.Add(Default, "default", "data", "pvc-1", "node")
	f.Add("{{.PVC.Namespace}}/{{.PVC.Name}}", "..", "../x", "", "n")
	f.Add("a/{{.PVName}}/../b", "n", "c", "p", "n")
	f.Add("{{range 3}}x{{end}}{{.PVName}}", "n", "c", "p", "n")
	f.Fuzz(func(t *testing.T, text, namespace, claim, pv, node string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		n := Names{PVC: Claim{Namespace: namespace, Name: claim, UID: "u"}, PVName: pv, NodeName: node}
		path, err := p.Render(n)
		if err != nil {
			return
		}
		if full := filepath.Join("/base", path); !strings.HasPrefix(full, "/base/") || full != "/base/"+path {
			t.Errorf("%q with %+v gives %q", text, n, path)
		}
		for _, element := range strings.Split(path, "/") {
			if len(element) > maxElement || element == "" || element[0] == '.' {
				t.Errorf("%q with %+v gives %q", text, n, path)
			}
		}
		// Two volumes never lie in each other: all paths of a pattern are as deep.
		other, err := p.Render(Names{PVC: Claim{Namespace: "n", Name: "c", UID: "v"}, PVName: "q", NodeName: "m"})
		if err != nil || strings.Count(other, "/") != strings.Count(path, "/") {
			t.Errorf("%q gives %q and %q, %v", text, path, other, err)
		}
	})
}
