package sdk

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

type pool struct {
	Size int `json:"size"`
}

type common struct {
	MTU int `json:"mtu"`
}

// instant reads itself, so that its keys are its own affair.
type instant struct{ time.Time }

func (i *instant) UnmarshalJSON([]byte) error { return nil }

type flannelish struct {
	common
	Backend string            `json:"backend"`
	Pools   []pool            `json:"pools"`
	Named   map[string]pool   `json:"named"`
	Labels  map[string]string `json:"labels"`
	Since   instant           `json:"since"`
	Hidden  string            `json:"-"`
}

func TestDecodeConfig(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"an empty block keeps the defaults", `{}`, ""},
		{"all keys", `{"mtu": 1400, "backend": "vxlan", "pools": [{"size": 1}], "named": {"a": {"size": 2}}, "labels": {"x": "y"}}`, ""},
		{"a type that reads itself", `{"since": {"any": "thing"}}`, ""},
		{"a key that is nearly one", `{"backedn": "vxlan"}`, `backedn: unknown key "backedn"; did you mean "backend"?`},
		{"a key in other capitals", `{"Backend": "vxlan"}`, `did you mean "backend"?`},
		{"a key like none", `{"password": 1}`, `unknown key "password"; allowed are backend, labels, mtu, named, pools, since`},
		{"a key that is not for JSON", `{"Hidden": "x"}`, `unknown key "Hidden"`},
		{"a key in a list", `{"pools": [{"size": 1}, {"sice": 2}]}`, `pools[1].sice: unknown key "sice"; did you mean "size"?`},
		{"a key in a map", `{"named": {"a": {"sizes": 2}}}`, `named.a.sizes: unknown key "sizes"`},
		{"a value of the wrong type", `{"pools": [{"size": "big"}]}`, "pools.size: a JSON string is no int"},
		{"two values", `{} {}`, "more than one JSON value"},
		{"no JSON", `{"backend"`, "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := &Host{config: json.RawMessage(c.config)}
			v := flannelish{Backend: "default"}
			err := host.DecodeConfig(&v)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			}
			if c.config == "{}" && v.Backend != "default" {
				t.Errorf("the default became %q", v.Backend)
			}
		})
	}
}

const exampleSchema = `{
	"type": "object", "additionalProperties": false, "required": ["backend"],
	"properties": {
		"backend": {"enum": ["vxlan", "host-gw"], "description": "how packets travel"},
		"mtu": {"type": "integer", "minimum": 576, "maximum": 65535},
		"ratio": {"type": "number"},
		"name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 4},
		"pools": {"type": "array", "maxItems": 2, "items": {
			"type": "object", "additionalProperties": false, "properties": {"size": {"type": "integer"}}}},
		"labels": {"type": "object", "additionalProperties": {"type": "string"}},
		"anything": {}
	}}`

func TestCheckConfig(t *testing.T) {
	for _, c := range []struct{ name, schema, config, path, message string }{
		{"good", exampleSchema, `{"backend": "vxlan", "mtu": 1450, "ratio": 1.5, "pools": [{"size": 1}], "labels": {"a": "b"}, "anything": [1]}`, "", ""},
		{"a whole number with a point is an integer", exampleSchema, `{"backend": "vxlan", "mtu": 1450.0}`, "", ""},
		{"an unknown key", exampleSchema, `{"backend": "vxlan", "mut": 1}`, "mut", `did you mean "mtu"?`},
		{"a missing key", exampleSchema, `{}`, "backend", "is required"},
		{"not in the list", exampleSchema, `{"backend": "vlan"}`, "backend", `have "vlan", allowed are "vxlan", "host-gw"`},
		{"too small", exampleSchema, `{"backend": "vxlan", "mtu": 12}`, "mtu", "have 12, want at least 576"},
		{"too large", exampleSchema, `{"backend": "vxlan", "mtu": 70000}`, "mtu", "at most 65535"},
		{"a fraction", exampleSchema, `{"backend": "vxlan", "mtu": 1450.5}`, "mtu", "want integer, have 1450.5"},
		{"a word for a number", exampleSchema, `{"backend": "vxlan", "mtu": "big"}`, "mtu", `want integer, have "big"`},
		{"no match", exampleSchema, `{"backend": "vxlan", "name": "A"}`, "name", "does not match ^[a-z]+$"},
		{"too long", exampleSchema, `{"backend": "vxlan", "name": "abcde"}`, "name", "have 5 characters, want at most 4"},
		{"too many", exampleSchema, `{"backend": "vxlan", "pools": [{}, {}, {}]}`, "pools", "have 3 items, want at most 2"},
		{"deep in a list", exampleSchema, `{"backend": "vxlan", "pools": [{}, {"sise": 1}]}`, "pools[1].sise", `did you mean "size"?`},
		{"deep in a map", exampleSchema, `{"backend": "vxlan", "labels": {"a": 1}}`, "labels.a", "want string, have 1"},
		{"no object", exampleSchema, `[]`, "", "want object, have a list"},
		{"no JSON", exampleSchema, `{`, "", "no JSON"},
		{"no schema takes an empty block", "", `{}`, "", ""},
		{"no schema takes no key", "", `{"port": 1}`, "port", "none is allowed here"},
		{"a schema that is wrong itself", `{"typ": "object"}`, `{}`, "", `schema is wrong: typ: unknown key "typ"; did you mean "type"?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var schema json.RawMessage
			if c.schema != "" {
				schema = json.RawMessage(c.schema)
			}
			problems := CheckConfig(schema, json.RawMessage(c.config))
			if c.message == "" {
				if len(problems) > 0 {
					t.Errorf("problems: %v", problems)
				}
				return
			}
			if !slices.ContainsFunc(problems, func(p ConfigProblem) bool {
				return p.Path == c.path && strings.Contains(p.Message, c.message)
			}) {
				t.Errorf("problems %v, want %q at %q", problems, c.message, c.path)
			}
		})
	}
}

// FuzzCheckConfig: neither a stranger's schema nor a user's block makes it panic or take
// long.
func FuzzCheckConfig(f *testing.F) {
	f.Add(exampleSchema, `{"backend": "vxlan"}`)
	f.Add(`{"type":"object","additionalProperties":{"items":{"enum":[1,null,{"a":[]}]}}}`, `{"a":[1,2.0,null]}`)
	f.Add(`{"properties":{"a":null}}`, `{"a":1}`)
	f.Fuzz(func(t *testing.T, schema, config string) {
		for _, p := range CheckConfig(json.RawMessage(schema), json.RawMessage(config)) {
			if p.Message == "" {
				t.Error("a problem without a message")
			}
		}
	})
}
