package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/config"
)

// ownDropIn is the name of the drop-in that `k3m component enable|disable|configure` keeps.
const ownDropIn = "90-k3m-component.yaml"

const dropInHeader = `# Kept by "k3m component enable|disable|configure", which write it anew: put what you write
# yourself into another file.
`

// dropIn is that file while it is being changed. Nobody else changes it before close.
type dropIn struct {
	path   string
	before []byte // nil when it does not exist
	values map[string]any
	lock   *os.File // nil after close
}

// openDropIn reads the drop-in beside a configuration file, and waits for others that change
// it.
func openDropIn(file string) (*dropIn, error) {
	dir := config.DropInDir(file)
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of drop-ins: %w", err)
	}
	d := &dropIn{path: filepath.Join(dir, ownDropIn), lock: lock, values: map[string]any{}}
	d.before, err = os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = yaml.NewDecoder(bytes.NewReader(d.before)).Decode(&d.values)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		d.close()
		return nil, fmt.Errorf("read %s: %w; mend or remove it", d.path, err)
	}
	if d.values == nil {
		d.values = map[string]any{}
	}
	return d, nil
}

// lockDir makes the folder, if need be, and locks it.
func lockDir(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			there, thereErr := os.Lstat(dir)
			if errors.Is(err, fs.ErrExist) && (thereErr != nil || there.IsDir()) {
				continue // it was removed while MkdirAll looked
			}
			return nil, err
		}
		lock, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever held it has just removed it
		}
		if err != nil {
			return nil, err
		}
		if err := flock(lock); err != nil {
			lock.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		// While this waited, the folder may have been removed, and made anew by somebody
		// who has the lock of that one.
		locked, err := lock.Stat()
		there, thereErr := os.Stat(dir)
		if err == nil && thereErr == nil && os.SameFile(locked, there) {
			return lock, nil
		}
		lock.Close()
		if err != nil || thereErr != nil && !errors.Is(thereErr, fs.ErrNotExist) {
			return nil, errors.Join(err, thereErr)
		}
	}
}

// flock waits for the lock; a signal, which the runtime sends itself, does not end that.
func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// close gives the file free. It may be called again.
func (d *dropIn) close() {
	if d.lock == nil {
		return
	}
	_ = os.Remove(filepath.Dir(d.path)) // of which nothing is left if there is no file in it
	_ = d.lock.Close()                  // it was only a lock
	d.lock = nil
}

// text is the file's content; nil when it has none and is to be removed.
func (d *dropIn) text() ([]byte, error) {
	if len(d.values) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	b.WriteString(dropInHeader)
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(d.values); err != nil {
		return nil, fmt.Errorf("write %s: %w", d.path, err)
	}
	return b.Bytes(), e.Close()
}

// write puts text in the place of the file, or removes it. It may hold secrets of components.
func (d *dropIn) write(text []byte) error {
	if text != nil {
		return atomicfile.Write(d.path, text, 0o600)
	}
	if err := os.Remove(d.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(d.path))
}

// restore puts the old file back.
func (d *dropIn) restore() error { return d.write(d.before) }

// unmade deals with a change that is written, and that the server was told to make: the file of
// before comes back if the server said no, or had gone before it heard of it. If it did not say,
// it may have made the change, and the file stays.
func (d *dropIn) unmade(err error) error {
	var refused refusedError
	var none noServerError
	if !errors.As(err, &refused) && !errors.As(err, &none) {
		return fmt.Errorf("%w; the server may have made the change, so it is kept in %s: look at `k3m status`", err, d.path)
	}
	if restored := d.restore(); restored != nil {
		return fmt.Errorf("%w; nor could the configuration of before be put back: %w", err, restored)
	}
	return err
}

// setList makes the merged value of a list option what is wanted, given what weaker files say:
// it adds to theirs if that is enough, so that they still count.
func (d *dropIn) setList(option string, weaker, wanted []string) {
	delete(d.values, option)
	delete(d.values, option+"+")
	switch {
	case slices.Equal(weaker, wanted):
	case len(wanted) > len(weaker) && slices.Equal(weaker, wanted[:len(weaker)]):
		d.values[option+"+"] = wanted[len(weaker):]
	default:
		d.values[option] = slices.Concat([]string{}, wanted)
	}
}

// block is the component's block in this file, made if need be.
func (d *dropIn) block(id string) (map[string]any, error) {
	blocks, ok := d.values["components"].(map[string]any)
	if !ok {
		if d.values["components"] != nil {
			return nil, fmt.Errorf("read %s: `components` is not a list of blocks; mend or remove the file", d.path)
		}
		blocks = map[string]any{}
		d.values["components"] = blocks
	}
	block, ok := blocks[id].(map[string]any)
	if !ok {
		block = map[string]any{}
		blocks[id] = block
	}
	return block, nil
}

// tidy removes empty blocks.
func (d *dropIn) tidy() {
	blocks, ok := d.values["components"].(map[string]any)
	if !ok {
		return
	}
	maps.DeleteFunc(blocks, func(_ string, block any) bool {
		b, ok := block.(map[string]any)
		return ok && len(b) == 0
	})
	if len(blocks) == 0 {
		delete(d.values, "components")
	}
}

// setPath sets a key, "a.b.c", in nested objects, or deletes it with a nil value. What lies on
// the way is copied from merged, the block in force: a key replaces the whole of a weaker
// file's.
func setPath(block, merged map[string]any, path string, value any) error {
	name, rest, nested := strings.Cut(path, ".")
	if !nested {
		if value == nil {
			delete(block, name)
		} else {
			block[name] = value
		}
		return nil
	}
	child := map[string]any{}
	if have, ok := merged[name]; ok {
		object, ok := have.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is not an object, so it has no key %s", name, rest)
		}
		child = maps.Clone(object)
	}
	if own, ok := block[name].(map[string]any); ok {
		child = maps.Clone(own)
	}
	below, _ := merged[name].(map[string]any)
	if err := setPath(child, below, rest, value); err != nil {
		return err
	}
	block[name] = child
	return nil
}
