package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk/nearest"
)

// decodeStrict is json.Unmarshal that refuses keys that v has no field for.
func decodeStrict(raw json.RawMessage, v any) error {
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("decode configuration: want a pointer to a struct, have %T", v)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("decode configuration: more than one JSON value")
	}
	if err := checkKeys("", tree, target.Type().Elem()); err != nil {
		return fmt.Errorf("decode configuration: %w", err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return fmt.Errorf("decode configuration: %s: a JSON %s is no %s", wrong.Field, wrong.Value, wrong.Type)
		}
		return fmt.Errorf("decode configuration: %w", err)
	}
	return nil
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// checkKeys walks value beside the type that it will be decoded into.
func checkKeys(path string, value any, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return nil // the type knows its own keys
	}
	switch value := value.(type) {
	case map[string]any:
		switch t.Kind() {
		case reflect.Struct:
			fields := jsonFields(t)
			for _, key := range sortedKeys(value) {
				field, ok := fields[key]
				if !ok {
					return unknownKey(joinPath(path, key), key, sortedKeys(fields))
				}
				if err := checkKeys(joinPath(path, key), value[key], field); err != nil {
					return err
				}
			}
		case reflect.Map:
			for _, key := range sortedKeys(value) {
				if err := checkKeys(joinPath(path, key), value[key], t.Elem()); err != nil {
					return err
				}
			}
		}
	case []any:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
			for n, item := range value {
				if err := checkKeys(fmt.Sprintf("%s[%d]", path, n), item, t.Elem()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// jsonFields maps the keys that encoding/json knows for t to their types, those of
// embedded structs included.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() || (f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct) {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = f.Type
	}
	return fields
}

func unknownKey(path, key string, known []string) error {
	return errors.New(joinNonEmpty(path, unknownKeyMessage(key, known)))
}

// unknownKeyMessage is one clause: what is wrong, and what was meant or is allowed.
func unknownKeyMessage(key string, known []string) string {
	if near := nearest.To(key, known); near != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", key, near)
	}
	if len(known) == 0 {
		return fmt.Sprintf("unknown key %q; none is allowed here", key)
	}
	return fmt.Sprintf("unknown key %q; allowed are %s", key, strings.Join(known, ", "))
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func joinNonEmpty(path, message string) string {
	if path == "" {
		return message
	}
	return path + ": " + message
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
