package localpath

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
	"github.com/k3m-io/k3m/test/clusterapi"
)

func TestContract(t *testing.T) {
	api := controlPlane(t)
	c := newCluster(t, api)
	self, err := os.Executable()
	must(t, err)
	dir := t.TempDir()
	config, err := json.Marshal(map[string]any{
		"paths":       map[string][]string{clusterapi.NodeName: {filepath.Join(dir, "a"), filepath.Join(dir, "b")}, otherNodes: {}},
		"pathPattern": "{{ .PVC.Namespace }}/{{ .PVC.Name }}",
	})
	must(t, err)
	plugintest.Run(t, plugintest.Options{
		New:        func() sdk.Plugin { return &plugin{} }, // not confined, as this process goes on
		Executable: self,                                   // see TestMain
		Args:       []string{"local-storage.local-path"},
		Facts:      sdk.Facts{NodeName: clusterapi.NodeName},
		Kubeconfig: c.kubeconfig,
		Config:     config,
		BadConfigs: []plugintest.BadConfig{
			{Name: "a relative path", Config: json.RawMessage(`{"paths":{"n":["data"]}}`), Path: "paths.n[0]"},
			{Name: "the root", Config: json.RawMessage(`{"paths":{"n":["/"]}}`), Path: "paths.n[0]"},
			{Name: "a path that is not clean", Config: json.RawMessage(`{"paths":{"n":["/a/../b"]}}`), Path: "paths.n[0]"},
			{Name: "paths in each other", Config: json.RawMessage(`{"paths":{"DEFAULT":["/a","/a/b"]}}`), Path: "paths.DEFAULT[1]"},
			{Name: "paths that are no list", Config: json.RawMessage(`{"paths":{"n":"/a"}}`), Path: "paths.n"},
			{Name: "a pattern that leads out", Config: json.RawMessage(`{"pathPattern":"../{{ .PVName }}"}`), Path: "pathPattern"},
			{Name: "a pattern that is not unique", Config: json.RawMessage(`{"pathPattern":"{{ .PVC.Name }}"}`), Path: "pathPattern"},
			{Name: "an empty pattern", Config: json.RawMessage(`{"pathPattern":""}`), Path: "pathPattern"},
		},
		WhileReady: func(t *testing.T, _ sdk.Facts) {
			for _, path := range []string{"a", "b"} {
				st, err := os.Stat(filepath.Join(dir, path))
				if err != nil || st.Mode().Perm() != baseMode {
					t.Errorf("%s: %v, %v", path, st, err)
				}
			}
			c.wantCapacity(t, className)
		},
	})
}

// TestCleanupKeepsVolumes: an empty directory for volumes goes; one that holds any stays as
// it is.
func TestCleanupKeepsVolumes(t *testing.T) {
	dir := t.TempDir()
	empty, full := filepath.Join(dir, "empty"), &base{path: filepath.Join(dir, "full")}
	must(t, os.Mkdir(empty, baseMode))
	must(t, full.prepare())
	volume := makeVolume(t, full, "pvc-1", "v")
	config, err := json.Marshal(map[string]any{"paths": map[string][]string{otherNodes: {empty, full.path, filepath.Join(dir, "none")}}})
	must(t, err)
	plugintest.Run(t, plugintest.Options{
		New: func() sdk.Plugin { return &plugin{} }, Config: config, SkipRun: "this is about Cleanup",
	})
	gone(t, empty)
	there(t, volume)
}
