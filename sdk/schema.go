package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// schema is the part of JSON Schema that a configuration block may be described with.
// Info.Validate refuses a schema that says more, so that no keyword is ever ignored.
type schema struct {
	// Annotations, for people.
	Dialect     string `json:"$schema"`
	ID          string `json:"$id"`
	Comment     string `json:"$comment"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Default     any    `json:"default"`
	Examples    []any  `json:"examples"`

	Type                 string             `json:"type"`
	Enum                 []any              `json:"enum"`
	Properties           map[string]*schema `json:"properties"`
	Required             []string           `json:"required"`
	AdditionalProperties *additional        `json:"additionalProperties"`
	Items                *schema            `json:"items"`
	MinItems             *int               `json:"minItems"`
	MaxItems             *int               `json:"maxItems"`
	Minimum              *float64           `json:"minimum"`
	Maximum              *float64           `json:"maximum"`
	MinLength            *int               `json:"minLength"`
	MaxLength            *int               `json:"maxLength"`
	Pattern              string             `json:"pattern"`

	pattern *regexp.Regexp
}

// additional is a boolean or a schema.
type additional struct {
	allowed bool
	schema  *schema
}

// UnmarshalJSON reads either form.
func (a *additional) UnmarshalJSON(raw []byte) error {
	if json.Unmarshal(raw, &a.allowed) == nil {
		return nil
	}
	a.allowed, a.schema = true, &schema{}
	return decodeStrict(raw, a.schema)
}

// maxSchemaDepth bounds the recursion through a schema that a stranger wrote.
const maxSchemaDepth = 32

func parseSchema(raw json.RawMessage) (*schema, error) {
	if depth(raw) > maxSchemaDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxSchemaDepth)
	}
	s := &schema{}
	if err := decodeStrict(raw, s); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "decode configuration: "))
	}
	return s, s.compile("")
}

var schemaTypes = []string{"object", "array", "string", "number", "integer", "boolean", "null"}

func (s *schema) compile(path string) error {
	if s == nil {
		return errors.New(joinNonEmpty(path, "want a schema, have null"))
	}
	if s.Type != "" && !slices.Contains(schemaTypes, s.Type) {
		return errors.New(joinNonEmpty(path, fmt.Sprintf("unknown type %q", s.Type)))
	}
	if s.Pattern != "" {
		re, err := regexp.Compile(s.Pattern)
		if err != nil {
			return errors.New(joinNonEmpty(path, err.Error()))
		}
		s.pattern = re
	}
	for _, key := range sortedKeys(s.Properties) {
		if err := s.Properties[key].compile(joinPath(path, key)); err != nil {
			return err
		}
	}
	if s.Items != nil {
		if err := s.Items.compile(path + "[]"); err != nil {
			return err
		}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.schema != nil {
		return s.AdditionalProperties.schema.compile(joinPath(path, "*"))
	}
	return nil
}

// CheckConfig checks a configuration block against the ConfigSchema of an Info, without
// its plugin. A nil schema allows only an empty block; a nil config is an empty one. All
// problems are returned, in the order of the keys' names.
//
// The keywords are type (one name), enum, properties, required, additionalProperties,
// items, minItems, maxItems, minimum, maximum, minLength, maxLength and pattern (Go's
// syntax), with the meaning of JSON Schema draft 2020-12, and the annotations title,
// description, default, examples, $schema, $id and $comment.
func CheckConfig(configSchema, config json.RawMessage) []ConfigProblem {
	if config == nil {
		config = json.RawMessage("{}")
	}
	s := &schema{Type: "object", AdditionalProperties: &additional{}}
	if configSchema != nil {
		var err error
		if s, err = parseSchema(configSchema); err != nil {
			return []ConfigProblem{{Message: fmt.Sprintf("the component's own schema is wrong: %v", err)}}
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return []ConfigProblem{{Message: fmt.Sprintf("no JSON: %v", err)}}
	}
	return s.check("", value)
}

func (s *schema) check(path string, value any) []ConfigProblem {
	problem := func(format string, a ...any) []ConfigProblem {
		return []ConfigProblem{{Path: path, Message: fmt.Sprintf(format, a...)}}
	}
	if s.Type != "" && !isType(value, s.Type) {
		return problem("want %s, have %s", s.Type, show(value))
	}
	if s.Enum != nil && !slices.ContainsFunc(s.Enum, func(e any) bool { return sameJSON(e, value) }) {
		allowed := make([]string, len(s.Enum))
		for n, e := range s.Enum {
			allowed[n] = show(e)
		}
		return problem("have %s, allowed are %s", show(value), strings.Join(allowed, ", "))
	}
	switch value := value.(type) {
	case map[string]any:
		return s.checkObject(path, value)
	case []any:
		if s.MinItems != nil && len(value) < *s.MinItems {
			return problem("have %d items, want at least %d", len(value), *s.MinItems)
		}
		if s.MaxItems != nil && len(value) > *s.MaxItems {
			return problem("have %d items, want at most %d", len(value), *s.MaxItems)
		}
		var problems []ConfigProblem
		for n, item := range value {
			if s.Items != nil {
				problems = append(problems, s.Items.check(fmt.Sprintf("%s[%d]", path, n), item)...)
			}
		}
		return problems
	case json.Number:
		n, _ := value.Float64()
		if s.Minimum != nil && n < *s.Minimum {
			return problem("have %s, want at least %v", value, *s.Minimum)
		}
		if s.Maximum != nil && n > *s.Maximum {
			return problem("have %s, want at most %v", value, *s.Maximum)
		}
	case string:
		if n := len([]rune(value)); s.MinLength != nil && n < *s.MinLength {
			return problem("have %d characters, want at least %d", n, *s.MinLength)
		} else if s.MaxLength != nil && n > *s.MaxLength {
			return problem("have %d characters, want at most %d", n, *s.MaxLength)
		}
		if s.pattern != nil && !s.pattern.MatchString(value) {
			return problem("%q does not match %s", value, s.Pattern)
		}
	}
	return nil
}

func (s *schema) checkObject(path string, value map[string]any) []ConfigProblem {
	var problems []ConfigProblem
	for _, key := range s.Required {
		if _, ok := value[key]; !ok {
			problems = append(problems, ConfigProblem{Path: joinPath(path, key), Message: "is required"})
		}
	}
	for _, key := range sortedKeys(value) {
		at := joinPath(path, key)
		if property, ok := s.Properties[key]; ok {
			problems = append(problems, property.check(at, value[key])...)
		} else if more := s.AdditionalProperties; more != nil && !more.allowed {
			problems = append(problems, ConfigProblem{Path: at, Message: unknownKeyMessage(key, sortedKeys(s.Properties))})
		} else if more != nil && more.schema != nil {
			problems = append(problems, more.schema.check(at, value[key])...)
		}
	}
	return problems
}

func isType(value any, name string) bool {
	switch value := value.(type) {
	case map[string]any:
		return name == "object"
	case []any:
		return name == "array"
	case string:
		return name == "string"
	case bool:
		return name == "boolean"
	case nil:
		return name == "null"
	case json.Number:
		n, err := value.Float64()
		return name == "number" || name == "integer" && err == nil && n == math.Trunc(n)
	}
	return false
}

// sameJSON compares a schema's value (numbers are float64) with a configuration's
// (numbers are json.Number).
func sameJSON(want, have any) bool {
	if n, ok := have.(json.Number); ok {
		f, err := n.Float64()
		return err == nil && want == f
	}
	return reflect.DeepEqual(want, have)
}

func show(value any) string {
	switch value := value.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return strconv.Quote(value)
	}
	raw, _ := json.Marshal(value)
	return string(raw)
}

// depth is the deepest nesting of brackets and braces outside strings.
func depth(raw []byte) int {
	deepest, now, inString, escaped := 0, 0, false, false
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}
