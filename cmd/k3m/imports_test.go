package main

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/k3m-io/k3m/"

// TestImportsPointOneWay holds the layers: cmd -> components, core -> sdk, and
// plugins -> sdk. The linter's depguard rule says the same for direct imports; this one
// sees the indirect ones too.
func TestImportsPointOneWay(t *testing.T) {
	for name, tc := range map[string]struct {
		packages string
		banned   []string
	}{
		"core knows no component":            {"core/...", []string{module + "components", module + "plugins", module + "cmd"}},
		"components know no core":            {"components/...", []string{module + "core", module + "plugins", module + "cmd", "k8s.io/kubernetes/"}},
		"plugins know only the sdk":          {"plugins/...", []string{module + "core", module + "components", module + "cmd", "k8s.io/kubernetes/"}},
		"the launcher stays tiny":            {"cmd/k3m-launch", []string{module + "core", "k8s.io/", "google.golang.org/", "github.com/hashicorp/"}},
		"the self-extractor stays small":     {"cmd/k3m-bundle", []string{module + "components", "k8s.io/client-go", "k8s.io/kubernetes/"}},
		"the plugins' executable is no core": {"cmd/k3m-plugins", []string{module + "core", module + "components", "k8s.io/kubernetes/", "github.com/k3s-io/kine"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "../../"+tc.packages).Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, dependency := range strings.Fields(string(out)) {
				for _, banned := range tc.banned {
					if strings.HasPrefix(dependency+"/", strings.TrimSuffix(banned, "/")+"/") {
						t.Errorf("%s depends on %s", tc.packages, dependency)
					}
				}
			}
		})
	}
}
