package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
)

// TestUnitFile has systemd look at the unit of the manual, where there is one, and checks what it
// has to say.
func TestUnitFile(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```ini\n(.*?)```").FindSubmatch(manual)
	if block == nil {
		t.Fatal("the manual has no unit file")
	}
	options, err := unit.DeserializeOptions(strings.NewReader(string(block[1])))
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]string{}
	for _, o := range options {
		has[o.Section+"."+o.Name] = o.Value
	}
	for name, want := range map[string]string{
		"Service.Type": "notify", "Service.ExecStart": "/usr/local/bin/k3m server", "Service.KillMode": "process", "Service.Delegate": "yes",
		"Service.RestartPreventExitStatus": "2", "Install.WantedBy": "multi-user.target",
	} {
		if has[name] != want {
			t.Errorf("%s is %q, want %q", name, has[name], want)
		}
	}
	systemd, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd here to look at it")
	}
	file := filepath.Join(t.TempDir(), "k3m.service")
	text := strings.ReplaceAll(string(block[1]), "/usr/local/bin/k3m", "/bin/true") // it looks for the program
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// What it does not understand it ignores, and says so.
	if out, err := exec.CommandContext(t.Context(), systemd, "verify", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
