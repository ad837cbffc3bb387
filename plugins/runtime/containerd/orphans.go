package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
)

// shim is a running shim process.
type shim struct {
	pid int
	// id is the container that it was started for; the others of the pod came later.
	id string
}

// shimsOf finds the shims that were started for the containerd at socket, which is in
// their command line.
func shimsOf(socket string) ([]shim, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var shims []shim
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // the process ended
		}
		args := strings.Split(string(raw), "\x00")
		if filepath.Base(args[0]) != "containerd-shim-runc-v2" || wordAfter(args, "-address") != socket {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		shims = append(shims, shim{pid: pid, id: wordAfter(args, "-id")})
	}
	return shims, nil
}

func wordAfter(words []string, flag string) string {
	if i := slices.Index(words, flag); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

// removeOrphans ends what a killed containerd had begun to start and did not write down,
// shims, containers and network namespaces: nobody else would ever end them. records are
// what it did write down of its sandboxes. It must be called when the existing shims were
// adopted, which removes the bundles of those that can't be, and before new ones are
// started.
func (s sweep) removeOrphans(ctx context.Context, records [][]byte) error {
	return errors.Join(s.removeOrphanedShims(ctx), s.removeOrphanedNetworks(ctx, records))
}

func (s sweep) removeOrphanedShims(ctx context.Context) error {
	orphan := func(id string) bool {
		bundles, err := filepath.Glob(filepath.Join(filepath.Dir(s.bundles()), "*", id))
		return err == nil && len(bundles) == 0
	}
	shims, err := shimsOf(s.socket)
	if err != nil {
		return fmt.Errorf("look for orphaned shims: %w", err)
	}
	var errs []error
	for _, shim := range shims {
		if !orphan(shim.id) {
			continue
		}
		s.log.Warn("ending a shim that was half started when containerd was killed", "id", shim.id, "pid", shim.pid)
		if err := killAndWait(ctx, shim.pid); err != nil {
			errs = append(errs, fmt.Errorf("end orphaned shim %d: %w", shim.pid, err))
		}
	}
	return errors.Join(append(errs, s.deleteContainers(ctx, orphan))...)
}

// removeOrphanedNetworks removes the network namespaces that no record names.
func (s sweep) removeOrphanedNetworks(ctx context.Context, records [][]byte) error {
	found, err := filepath.Glob(filepath.Join(s.netns(), "cni-*"))
	if err != nil {
		return err
	}
	orphan := func(netns string) bool {
		// The records are JSON, in which a path stands as it is.
		return !slices.ContainsFunc(records, func(r []byte) bool { return bytes.Contains(r, []byte(netns)) })
	}
	var errs []error
	for _, netns := range slices.DeleteFunc(found, func(n string) bool { return !orphan(n) }) {
		s.log.Warn("removing a network namespace that was half made when containerd was killed", "netns", netns)
		err := s.removeNetworks(ctx, func(n string) bool { return n == netns })
		if uerr := unix.Unmount(netns, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); uerr != nil && !errors.Is(uerr, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", netns, uerr)) // EINVAL: not mounted yet
		}
		errs = append(errs, err, os.Remove(netns))
	}
	return errors.Join(errs...)
}

// sandboxRecords are what containerd has written down of its sandboxes.
func (e *engine) sandboxRecords(ctx context.Context) ([][]byte, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	var records [][]byte
	add := func(extensions map[string]typeurl.Any) {
		for _, x := range extensions {
			records = append(records, x.GetValue())
		}
	}
	sandboxes, err := e.bridge.client.SandboxStore().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	for _, s := range sandboxes {
		add(s.Extensions)
	}
	containers, err := e.bridge.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for _, c := range containers {
		add(c.Extensions)
	}
	return records, nil
}
