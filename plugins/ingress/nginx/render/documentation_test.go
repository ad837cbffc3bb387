package render_test

import (
	"os"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
)

// The tables name every annotation and key that is read, and every one that is known and isn't.
func TestTablesAreWhole(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	closing, ignored := annotations.NotSupported()
	for _, name := range append(append(annotations.Names(), closing...), ignored...) {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("the annotation %s is in no table", name)
		}
	}
	for _, key := range settings.Keys() {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("the key %s is in no table", key)
		}
	}
}
