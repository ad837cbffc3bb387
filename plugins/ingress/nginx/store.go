package nginx

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
)

// currentLink names the folder of the configuration that nginx reads.
const currentLink = "current"

// store keeps nginx's files in a folder of the component's own, all 0600. A file besides
// the configuration has a name that is made of its content, and so is written once, and
// never changes under an nginx that reads it; each configuration has a folder of its own,
// and currentLink is switched to it when nginx has found it good.
type store struct {
	dir   string
	token string // stands for the generation in what is rendered
	// used are the files of the current generation and of the one before, whose workers may
	// not have ended.
	used [2]map[string]bool
}

// newStore empties the folder: what an earlier process left may be half written.
func newStore(dir string) (*store, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("empty the folder of nginx's configuration: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of nginx's configuration: %w", err)
	}
	return &store{dir: dir, token: rand.Text(), used: [2]map[string]bool{{}, {}}}, nil
}

// generation is a configuration that was written.
type generation struct {
	id    string // made of the content of all files
	conf  string // path
	bytes int
	files map[string]bool
}

// write writes what was rendered, with the store's token as its generation.
func (s *store) write(out *render.Output) (*generation, error) {
	sum := sha256.New()
	for _, file := range out.Files {
		fmt.Fprintf(sum, "%s %d\n", file.Path, len(file.Data))
		if file.Path == render.Conf {
			sum.Write(file.Data) // the names of the others are made of their content
		}
	}
	g := &generation{id: hex.EncodeToString(sum.Sum(nil))[:32], files: map[string]bool{}}
	dir := filepath.Join(s.dir, "generation-"+g.id)
	g.conf = filepath.Join(dir, render.Conf)
	for _, file := range out.Files {
		path, data := filepath.Join(s.dir, file.Path), file.Data
		switch {
		case file.Path == render.Conf:
			path, data = g.conf, bytes.ReplaceAll(data, []byte(s.token), []byte(g.id))
			g.bytes = len(data)
		case !filepath.IsLocal(file.Path) || strings.HasPrefix(file.Path, "generation-"):
			return nil, fmt.Errorf("write nginx's configuration: bad file name %q", file.Path)
		default:
			g.files[path] = true
			if s.used[0][path] || s.used[1][path] {
				continue
			}
		}
		if err := writeFile(path, data); err != nil {
			return nil, fmt.Errorf("write nginx's configuration: %w", err)
		}
	}
	return g, nil
}

// writeFile replaces a file at once. It need not outlive a power cut.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// current is the path of the configuration for nginx itself, whatever the generation.
func (s *store) current() string { return filepath.Join(s.dir, currentLink, render.Conf) }

// activate has nginx read a generation the next time, and removes what neither it nor the
// one before needs.
func (s *store) activate(g *generation) error {
	link := filepath.Join(s.dir, currentLink)
	if err := os.Remove(link + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("switch nginx's configuration: %w", err)
	}
	if err := os.Symlink(filepath.Base(filepath.Dir(g.conf)), link+".new"); err != nil {
		return fmt.Errorf("switch nginx's configuration: %w", err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		return fmt.Errorf("switch nginx's configuration: %w", err)
	}
	before := s.used
	s.used = [2]map[string]bool{g.files, before[0]}
	for path := range before[1] {
		if !s.used[0][path] && !s.used[1][path] {
			_ = os.Remove(path) // what stays is removed with the folder at the next start
		}
	}
	return s.prune(g)
}

// discard removes a generation that nginx refused.
func (s *store) discard(g *generation) {
	_ = os.RemoveAll(filepath.Dir(g.conf))
	for path := range g.files {
		if !s.used[0][path] && !s.used[1][path] {
			_ = os.Remove(path)
		}
	}
}

// prune removes the configurations before g.
func (s *store) prune(g *generation) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("remove nginx's old configurations: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(s.dir, entry.Name())
		if strings.HasPrefix(entry.Name(), "generation-") && path != filepath.Dir(g.conf) {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("remove nginx's old configurations: %w", err)
			}
		}
	}
	return nil
}
