package components

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/k3m-io/k3m/components/cgroup"
	"github.com/k3m-io/k3m/components/launch"
	"github.com/k3m-io/k3m/sdk"
	"golang.org/x/sys/unix"
)

// inspectTimeout bounds an inspection as a whole.
const inspectTimeout = 20 * time.Second

// Inspector asks plugins who they are, without trusting them: a plugin under inspection
// runs once, as a user that owns nothing, without capabilities, in empty network, pid, IPC
// and UTS namespaces, with small limits, and is ended with all that it started. (Without
// root there is only no_new_privs.) What it says then, it must say at every launch.
type Inspector struct {
	// Launcher is the path of the k3m-launch executable.
	Launcher string
	// CgroupParent is as in Options; it may be empty.
	CgroupParent string
	// Own says that the plugin is k3m's own, in a build: no namespaces, which a build
	// container may not be able to make.
	Own bool
	// Logger takes what the plugin writes; nil for nothing.
	Logger hclog.Logger
}

// Inspect returns what there is to record of the plugin at path, which is served with
// args. The Entry's Path is path's base name; the caller says what it is relative to.
func (i Inspector) Inspect(ctx context.Context, path string, args ...string) (Entry, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Entry{}, fmt.Errorf("inspect plugin: %w", err)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return Entry{}, fmt.Errorf("inspect plugin: %w", err)
	}
	digest, err := fileDigest(path)
	if err != nil {
		return Entry{}, fmt.Errorf("inspect plugin: %w", err)
	}
	e := Entry{Path: filepath.Base(path), Args: args, SHA256: digest, root: filepath.Dir(path)}
	ctx, cancel := context.WithTimeoutCause(ctx, inspectTimeout, fmt.Errorf("it did not say who it is within %s", inspectTimeout))
	defer cancel()
	err = i.ask(ctx, path, e, func(p *process) (err error) {
		e.Info, err = p.Info(ctx)
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("inspect plugin %s: %w", path, err)
	}
	if err := e.validate(); err != nil {
		return Entry{}, fmt.Errorf("inspect plugin %s: %w", path, err)
	}
	return e, nil
}

// ValidateConfig has a plugin that can (sdk.AbilityValidateConfig) check a configuration block,
// in the way that Inspect asks who it is.
func (i Inspector) ValidateConfig(ctx context.Context, e Entry, config json.RawMessage) ([]sdk.ConfigProblem, error) {
	path, err := checkTrusted(e.Executable())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, inspectTimeout, fmt.Errorf("it did not check it within %s", inspectTimeout))
	defer cancel()
	var problems []sdk.ConfigProblem
	err = i.ask(ctx, path, e, func(p *process) (err error) {
		problems, err = p.ValidateConfig(ctx, config)
		return err
	})
	return problems, err
}

// ask starts a process of the plugin, that owns nothing and may do nothing, for one question.
func (i Inspector) ask(ctx context.Context, path string, e Entry, question func(*process) error) error {
	scratch, err := os.MkdirTemp("", "k3m-inspect-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	spec := launch.Spec{
		Path: path, Args: append([]string{path}, e.Args...), SHA256: e.SHA256, UID: -1, GID: -1, Umask: 0o077,
		Limits: []launch.Limit{
			{Resource: unix.RLIMIT_CORE, Value: 0}, {Resource: unix.RLIMIT_NOFILE, Value: 256},
			{Resource: unix.RLIMIT_CPU, Value: 20}, {Resource: unix.RLIMIT_FSIZE, Value: 1 << 20},
		},
	}
	attr := ownSession()
	var group cgroup.Group
	if os.Geteuid() == 0 {
		spec.UID, spec.GID = inspectUID, inspectUID
		spec.Limits = append(spec.Limits, launch.Limit{Resource: unix.RLIMIT_NPROC, Value: 256})
		if err := os.Chown(scratch, inspectUID, inspectUID); err != nil {
			return err
		}
		if !i.Own {
			attr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
		}
		if group, err = i.group(filepath.Base(scratch)); err != nil {
			return err
		}
		defer func() {
			_ = group.Remove() // what end could not kill is not empty: it says so
			removeParents(group)
		}()
		spec.Cgroup = group
	}
	logger := i.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	p, err := startProcess(ctx, processSpec{
		launcher: i.Launcher, spec: spec, attr: attr, env: []string{"HOME=" + scratch, "TMPDIR=" + scratch},
		socketDir: scratch, group: group, output: newOutput(logger), startTimeout: inspectTimeout,
	})
	if err != nil {
		return err
	}
	err = question(p)
	if endErr := p.end(exitPatience); err == nil {
		err = endErr
	}
	return err
}

func (i Inspector) group(name string) (cgroup.Group, error) {
	if i.CgroupParent == "" {
		return nil, nil
	}
	g, err := groupOf(i.CgroupParent, name)
	if err != nil {
		return nil, err
	}
	_, err = makeGroup(g, sdk.Limits{MemoryBytes: 1 << 30, CPUMilli: 2000}, maxProcesses)
	return g, err
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Verify checks that the plugin's file is the one on record and that no other user could
// have changed it, as every launch does.
func (e Entry) Verify() error {
	path, err := checkTrusted(e.Executable())
	if err != nil {
		return fmt.Errorf("component %s: %w", e.ID(), err)
	}
	digest, err := fileDigest(path)
	if err != nil {
		return fmt.Errorf("component %s: %w", e.ID(), err)
	}
	if digest != e.SHA256 {
		return fmt.Errorf("component %s: %s has changed: its SHA-256 is %s, the one on record is %s; %s", e.ID(), path, digest, e.SHA256, e.mend())
	}
	return nil
}
