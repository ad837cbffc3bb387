package nginx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
)

// places are where packages put nginx: Debian, Alpine and RHEL in /usr/sbin, OpenResty and
// builds from source elsewhere.
var places = []string{"/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin", "/usr/bin", "/usr/local/bin", "/sbin"}

const (
	// versionTimeout bounds nginx -V.
	versionTimeout = 10 * time.Second
	// maxVersionText bounds what is read of it, in bytes.
	maxVersionText = 64 << 10
	// libraryPatience is when an executable that is there but does not run is tried
	// again: a package manager puts it there before its libraries, and nothing tells when
	// these have come.
	libraryPatience = 3 * time.Second
)

// executable is an nginx that can be used.
type executable struct {
	path    string
	version render.Nginx
}

// install says how nginx is got, for the operator.
const install = "install it (Debian: apt-get install nginx-light, Alpine: apk add nginx, RHEL: dnf install nginx-core; the host's own " +
	"nginx service is not needed: systemctl disable --now nginx), or set executable under components.ingress.nginx"

// candidates are the paths where nginx may be, in order.
func candidates(configured string) []string {
	if configured != "" {
		return []string{configured}
	}
	var all []string
	for _, dir := range slices.Concat(places, filepath.SplitList(os.Getenv("PATH"))) {
		path := filepath.Join(dir, "nginx")
		if filepath.IsAbs(path) && !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	return all
}

// find looks for an nginx that can be used. The error says why there is none and how to
// mend that; present tells whether some nginx is there.
func find(ctx context.Context, paths []string) (found executable, present bool, err error) {
	err = fmt.Errorf("there is no nginx at %s; %s", strings.Join(paths, ", "), install)
	for _, path := range paths {
		version, wrong := inspect(ctx, path)
		switch {
		case wrong == nil:
			return executable{path, version}, true, nil
		case errors.Is(wrong, fs.ErrNotExist):
		case !present: // the first that is there is the one to mend
			present = true
			err = fmt.Errorf("%s can't be used: %w; %s", path, wrong, install)
		}
	}
	return executable{}, present, err
}

// inspect asks an executable what it is.
func inspect(ctx context.Context, path string) (render.Nginx, error) {
	st, err := os.Stat(path)
	if err != nil {
		return render.Nginx{}, err
	}
	if !st.Mode().IsRegular() {
		return render.Nginx{}, errors.New("it is no file")
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	var text bounded
	cmd := exec.CommandContext(ctx, path, "-V")
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Run(); err != nil {
		return render.Nginx{}, fmt.Errorf("nginx -V: %w %s", err, firstLine(text.String()))
	}
	return render.ParseVersion(text.String())
}

// bounded keeps the first maxVersionText bytes that are written to it.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if left := maxVersionText - b.Len(); left > 0 {
		b.Builder.Write(p[:min(left, len(p))])
	}
	return len(p), nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// await looks for nginx until there is one that can be used, or ctx ends. why is called
// with each new reason why there is none. It sleeps until something changes in one of the
// folders where nginx may be.
func await(ctx context.Context, log hclog.Logger, paths []string, why func(error)) (executable, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return executable{}, fmt.Errorf("watch for nginx: %w", err)
	}
	defer func() { _ = watcher.Close() }() // nothing is watched any more
	watched := map[string]bool{}
	told := ""
	for {
		// Watched before it is looked for, so that nothing is missed. A folder that comes
		// later is noticed by the folder above it.
		for _, path := range paths {
			for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
				if watched[dir] || watcher.Add(dir) == nil {
					watched[dir] = true
					break
				}
				if dir == "/" {
					break
				}
			}
		}
		found, present, err := find(ctx, paths)
		if err == nil {
			return found, nil
		}
		if ctx.Err() != nil {
			return executable{}, context.Cause(ctx)
		}
		if err.Error() != told {
			told = err.Error()
			why(err)
		}
		if err := changed(ctx, log, watcher, paths, present); err != nil {
			return executable{}, err
		}
	}
}

// changed waits until something happened in a watched folder that may matter.
func changed(ctx context.Context, log hclog.Logger, watcher *fsnotify.Watcher, paths []string, present bool) error {
	var again <-chan time.Time
	if present {
		timer := time.NewTimer(libraryPatience)
		defer timer.Stop()
		again = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-again:
			return nil
		case err, open := <-watcher.Errors:
			if !open {
				return errors.New("watch for nginx: the watch ended")
			}
			log.Debug("watch for nginx", "err", err)
			return nil
		case event, open := <-watcher.Events:
			if !open {
				return errors.New("watch for nginx: the watch ended")
			}
			if slices.ContainsFunc(paths, func(p string) bool {
				return p == event.Name || strings.HasPrefix(p, event.Name+"/")
			}) {
				return nil
			}
		}
	}
}
