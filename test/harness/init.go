package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// initConfig is what the test process hands to the first process of a host, as its
// second argument.
type initConfig struct {
	Hostname string
	// Layers is an empty directory where the host's own layers are mounted.
	Layers string
	// Addr is the host's address, for /etc/hosts.
	Addr string
}

// Descriptors that the first process of a host inherits.
const (
	lifelineFD = 3 // read end; it ends with the test process
	reportFD   = 4 // write end; "ok" or what went wrong
)

// overlaid are the folders in which a host has a layer of its own.
var overlaid = []string{"/etc", "/opt", "/var", "/root"}

// cleared are folders that a host doesn't have at first, although the machine may have
// them from a node of its own.
var cleared = []string{
	"/etc/cni", "/etc/k3m", "/opt/cni", "/var/lib/cni", "/var/lib/containerd", "/var/lib/k3m", "/var/lib/kubelet",
	"/var/log/containers", "/var/log/pods",
}

// runInit is the first process of a test host: it makes the mounts, reaps what is
// orphaned, and ends with its lifeline.
func runInit() error {
	lifeline, report := os.NewFile(lifelineFD, "lifeline"), os.NewFile(reportFD, "report")
	var cfg initConfig
	err := json.Unmarshal([]byte(os.Args[1]), &cfg)
	if err == nil {
		err = setUp(cfg)
	}
	if err != nil {
		fmt.Fprintf(report, "%v", err)
		return err
	}
	child := make(chan os.Signal, 1)
	signal.Notify(child, unix.SIGCHLD)
	fmt.Fprint(report, "ok")
	report.Close()

	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, lifeline) // until its end, whatever that is
		close(gone)
	}()
	for {
		select {
		case <-gone:
			return nil
		case <-child:
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

// setUp makes the host's mounts. Nothing propagates to or from the machine; inside the
// host everything is shared, as systemd and container runtimes expect it.
func setUp(cfg initConfig) error {
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	steps := []func() error{
		func() error { return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") },
		func() error { return mount("tmpfs", cfg.Layers, "tmpfs", unix.MS_NODEV, "mode=0755,size=1g") },
		func() error { return mountSys(filepath.Join(cfg.Layers, "cgroup")) },
		func() error { return mountLayers(cfg.Layers) },
		clearNodes,
		func() error { return writeEtc(cfg) },
		func() error {
			return mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=256m")
		},
		func() error { return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// mountSys gives the host a /sys that shows its own interfaces, with the machine's
// cgroups in it: a plain mount of sysfs would hide them, and then neither kubelet nor
// runc starts.
func mountSys(aside string) error {
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return err
	}
	return errors.Join(
		mount("/sys/fs/cgroup", aside, "", unix.MS_BIND|unix.MS_REC, ""),
		mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		mount(aside, "/sys/fs/cgroup", "", unix.MS_MOVE, ""),
	)
}

func mountLayers(layers string) error {
	for _, dir := range overlaid {
		upper, work := filepath.Join(layers, "upper"+dir), filepath.Join(layers, "work"+dir)
		st, err := os.Stat(dir)
		if err != nil {
			continue
		}
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.Chmod(upper, st.Mode().Perm()), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
		if err := mount("overlay", dir, "overlay", 0, options); err != nil {
			return err
		}
	}
	return nil
}

// clearNodes removes what nodes of the machine's own left, in the host's layers only.
func clearNodes() error {
	var errs []error
	for _, dir := range cleared {
		if top := "/" + strings.Split(dir, "/")[1]; !mounted(top) {
			continue // no layer lies over it: it is the machine's
		}
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// mounted tells whether a folder is a mount point of an overlay.
func mounted(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// writeEtc makes names resolve without a question to the machine's resolver: the switch
// has nothing on port 53 and says so at once.
func writeEtc(cfg initConfig) error {
	files := map[string]string{
		"/etc/hostname":    cfg.Hostname + "\n",
		"/etc/hosts":       "127.0.0.1 localhost\n::1 localhost\n" + cfg.Addr + " " + cfg.Hostname + "\n",
		"/etc/resolv.conf": "nameserver " + SwitchAddr.String() + "\noptions timeout:1 attempts:1\n",
	}
	for path, text := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // it may be a link into /run
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}
