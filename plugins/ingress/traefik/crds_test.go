package traefik

import (
	"os"
	"os/exec"
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

func TestInfoIsValid(t *testing.T) {
	if err := sdk.Describe(New()).Validate(); err != nil {
		t.Error(err)
	}
}

// The definitions are those of the required version of Traefik.
func TestDefinitionsAreTraefiks(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/crds", 0o700))
	executable := dir + "/generate"
	build := exec.CommandContext(t.Context(), "go", "build", "-o", executable, "./crds")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	generate := exec.CommandContext(t.Context(), executable, dir+"/crds/definitions.jsonl")
	if output, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	published, err := os.ReadFile(dir + "/crds/definitions.jsonl")
	must(t, err)
	if string(published) != string(definitionLines) {
		t.Error("crds/definitions.jsonl is not what Traefik publishes; run go generate")
	}
	if n := len(definitions()); n != 18 {
		t.Errorf("%d definitions, want 9 in each of 2 groups", n)
	}
}
