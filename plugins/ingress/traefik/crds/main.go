// Command crds writes definitions.jsonl anew: the CustomResourceDefinitions that the required version of Traefik
// publishes, one a line, as JSON. Run it in the folder above, by `go generate`; an argument names another file.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// published is where Traefik's source has them.
const published = "docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml"

func main() {
	path := "crds/definitions.jsonl"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	if err := write(path); err != nil {
		fmt.Fprintln(os.Stderr, "crds:", err)
		os.Exit(1)
	}
}

func write(path string) error {
	lines, err := definitions()
	if err != nil {
		return err
	}
	return os.WriteFile(path, lines, 0o644) //nolint:gosec // a source file
}

func definitions() ([]byte, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/traefik/traefik/v2").Output() //nolint:noctx // ends by itself
	if err != nil {
		return nil, fmt.Errorf("find Traefik's source: %w", err)
	}
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), published))
	if err != nil {
		return nil, err
	}
	var lines bytes.Buffer
	for _, document := range strings.Split(string(raw), "\n---\n") {
		if document = strings.TrimPrefix(strings.TrimSpace(document), "---"); strings.TrimSpace(document) == "" {
			continue
		}
		one, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return nil, fmt.Errorf("read a definition: %w", err)
		}
		lines.Write(append(one, '\n'))
	}
	return lines.Bytes(), nil
}
