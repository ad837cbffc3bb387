package traefik

import (
	"bytes"
	_ "embed" // the definitions
	"encoding/json"
)

//go:generate go run ./crds

// definitionLines are the definitions of Traefik's resources in both of its API groups, one a line, as its source
// publishes them.
//
//go:embed crds/definitions.jsonl
var definitionLines []byte

// definitions are CustomResourceDefinitions.
func definitions() []json.RawMessage {
	var all []json.RawMessage
	for line := range bytes.Lines(definitionLines) {
		all = append(all, json.RawMessage(bytes.TrimSpace(line)))
	}
	return all
}
