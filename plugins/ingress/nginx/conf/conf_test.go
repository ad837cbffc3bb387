package conf_test

import (
	"reflect"
	"testing"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/conf"
)

func TestParse(t *testing.T) {
	for text, want := range map[string][]conf.Directive{
		"":                           {},
		" # nothing\n":               {},
		"a;":                         {{Words: []string{"a"}, Line: 1}},
		"a b 'c;}' \"d\\\"\" e\\;f;": {{Words: []string{"a", "b", "c;}", `d"`, `e\;f`}, Line: 1}},
		"\na {\n b ${c}d; }\nc '';": {
			{Words: []string{"a"}, Line: 2, Block: []conf.Directive{{Words: []string{"b", "${c}d"}, Line: 3}}},
			{Words: []string{"c", ""}, Line: 4}},
		"a {}": {{Words: []string{"a"}, Line: 1, Block: []conf.Directive{}}},
	} {
		got, err := conf.Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"a", "a {", "a { b; ", "}", "a; }", "a; } b {", ";", "{ }", "a 'b", `a "b\"`, `a "b"c;`, `a \`, "a b # ;", "a {b"} {
		if got, err := conf.Parse(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

// What is read whole stays whole within a block: it ends none but its own.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"a;", "a {b;}", "a '};';", "#", "a \\;", "a ${b};", "}", "a; } b {"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		inner, err := conf.Parse(text)
		if err != nil {
			return
		}
		outer, err := conf.Parse("before; block {\n" + text + "\n} after;")
		if err != nil {
			return // blocks that are too deep
		}
		if len(outer) != 3 || len(outer[1].Block) != len(inner) || outer[2].Words[0] != "after" {
			t.Errorf("%q within a block: %v", text, outer)
		}
	})
}
