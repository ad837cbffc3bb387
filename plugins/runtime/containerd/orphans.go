package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// removeOrphans ends shims and containers that a killed containerd had begun to start
// and did not write down: nobody else would ever end them. It must be called when the
// existing shims were adopted, which removes the bundles of those that can't be, and
// before new ones are started.
func (s sweep) removeOrphans(ctx context.Context) error {
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
