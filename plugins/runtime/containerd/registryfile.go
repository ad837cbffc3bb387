package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/k3m-io/k3m/plugins/runtime/containerd/pull"
	"github.com/k3m-io/k3m/registries"
)

// registryFile keeps the settings of registries as registries.yaml says, also when that
// changes. A file with a mistake changes nothing: the mistake is reported until it is
// mended.
type registryFile struct {
	path     string
	settings *pull.Settings
	troubles *troubles
	log      hclog.Logger

	seen state // of the file that is in force, or that holds the reported mistake
}

// state tells a file from what it was before. The zero value is no file.
type state struct {
	size    int64
	changed time.Time
}

// unseen is no file's.
var unseen = state{size: -1}

// load takes the file up if it is another than before. A file that is not there says nothing.
func (f *registryFile) load() {
	var now state
	info, err := os.Stat(f.path)
	if err == nil {
		now = state{info.Size(), info.ModTime()}
	}
	subject := "registries"
	if now == f.seen && !f.troubles.has(subject) {
		return
	}
	if err := f.apply(err); err != nil {
		f.troubles.set(subject, strings.ReplaceAll(err.Error(), "\n", "; ")+" (what was in force before stays)")
		f.log.Error("take up the settings of registries; those before stay in force", "error", err)
	} else {
		f.troubles.set(subject, "")
		if now != (state{}) || f.seen != unseen { // most nodes have none, and need not be told
			f.log.Info("settings of registries are in force", "file", f.path, "exists", now != state{})
		}
	}
	f.seen = now
}

func (f *registryFile) apply(found error) error {
	if found != nil && !errors.Is(found, fs.ErrNotExist) {
		return fmt.Errorf("read the settings of registries: %w", found)
	}
	r, err := registries.Read(f.path)
	if registries.IsNotExist(err) {
		r, err = &registries.Registries{}, nil
	}
	if err != nil {
		return err
	}
	if info, err := os.Stat(f.path); err == nil && info.Mode().Perm()&0o077 != 0 && r.Secrets() {
		f.log.Warn("others than root can read the file, and it holds credentials; chmod 600 it", "file", f.path)
	}
	own, err := f.settings.Apply(r, f.path)
	if len(own) > 0 {
		f.log.Warn("these registries have a hosts.toml that k3m did not write: it is in force, and not what the settings say",
			"registries", own, "directory", f.settings.Dir())
	}
	return err
}

// run loads the file whenever it changes, until ctx ends.
func (f *registryFile) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := f.follow(ctx); err != nil && ctx.Err() == nil {
			f.log.Error("watch the settings of registries; a change is taken up at the next start", "file", f.path, "error", err)
			<-ctx.Done()
		}
	}
}

// follow watches the directory of the file, or the nearest one above it that is there, and
// returns when that should be another one.
func (f *registryFile) follow(ctx context.Context) error {
	dir, name := nearestDir(f.path)
	w, err := newWatch(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = w.Close() })()
	defer hangUp(w)
	if again, _ := nearestDir(f.path); again != dir {
		return nil
	}
	f.load() // what changed before the watch began
	for {
		batch, err := w.next()
		for _, a := range batch {
			switch {
			case a.name != "" && a.name != name:
			case dir != filepath.Dir(f.path):
				return nil // the next directory on the way was made
			default:
				f.load()
			}
		}
		if errors.Is(err, errDirectoryGone) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// nearestDir is the deepest directory above path that exists, and the name in it that leads
// to path.
func nearestDir(path string) (dir, name string) {
	for dir = path; dir != "/"; {
		dir, name = filepath.Dir(dir), filepath.Base(dir)
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
	}
	return dir, name
}
