package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Lab is what one test process owns. Its methods may be called by several goroutines.
type Lab struct {
	// Dir is the lab's temporary directory. Its path is short, since unix sockets below
	// it must fit into 108 bytes.
	Dir string
	// Dist is the executable under test.
	Dist string
	// Switch joins the hosts, and is also a client outside of all nodes.
	Switch *Switch

	keeper *keeper
	unpack sync.Once
	bundle error

	mu    sync.Mutex
	hosts int
}

// Open makes a lab. The program must have called Roles (or Main) before.
func Open() (*Lab, error) {
	dist, err := Dist()
	if err != nil {
		return nil, err
	}
	return open(dist)
}

func open(dist string) (*Lab, error) {
	k, err := startKeeper()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/tmp", "k3mt-")
	if err != nil {
		return nil, errors.Join(err, k.close())
	}
	l := &Lab{Dir: dir, Dist: dist, keeper: k}
	// Readable by others: plugins with a user id of their own live below it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := k.keep("dir", dir); err != nil {
		return nil, err
	}
	if l.Switch, err = newSwitch(); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return l, nil
}

// Close removes what is left of the lab: nothing but its directory, when the hosts were
// closed.
func (l *Lab) Close() error {
	l.Switch.close()
	return l.keeper.close()
}

// unpacked is a data directory that holds nothing but the unpacked dist/k3m. It is made
// once, and hosts get hard links of it: unpacking is not what most tests are about.
func (l *Lab) unpacked() (string, error) {
	dir := filepath.Join(l.Dir, "unpacked")
	l.unpack.Do(func() {
		cmd := exec.CommandContext(context.Background(), l.Dist, "version")
		cmd.Env = append(plainEnv(), "K3M_DATA_DIR="+dir, "K3M_RUN_DIR="+filepath.Join(dir, "run"))
		if out, err := cmd.CombinedOutput(); err != nil {
			l.bundle = fmt.Errorf("unpack %s: %w: %s", l.Dist, err, out)
		}
	})
	return dir, l.bundle
}

// plainEnv is the environment that programs under test get: nothing of the developer's
// K3M_ or KUBE settings, no proxies.
func plainEnv() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "TERM=xterm"}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); name == "GOTRACEBACK" || name == "GOCOVERDIR" {
			env = append(env, kv)
		}
	}
	return env
}
