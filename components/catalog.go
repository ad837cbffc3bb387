package components

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

const (
	// CatalogFile lists the built-in plugins, in <bundle>/plugins. Paths in it are
	// relative to the bundle.
	CatalogFile = "catalog.json"
	// LockFile lists the installed plugins, in <data-dir>/plugins. Paths in it are
	// relative to that directory.
	LockFile = "plugins.lock"

	formatVersion  = 1
	maxCatalogSize = 16 << 20
	maxPlugins     = 1000
)

// Entry is what is on record of one plugin.
type Entry struct {
	// Info is what the plugin must say of itself at every launch.
	Info sdk.Info `json:"info"`
	// Path is the executable's, relative to the bundle or the plugins directory.
	Path string `json:"path"`
	// Args go before all else that the plugin is called with: the component's ID when
	// one executable serves several.
	Args []string `json:"args,omitempty"`
	// SHA256 is the executable's digest in hexadecimal.
	SHA256 string `json:"sha256"`
	// Default says that this is the component of its kind when nothing is chosen.
	Default bool `json:"default,omitempty"`

	root      string
	installed bool
	refused   error
}

// ID is the component's, "cni.flannel".
func (e Entry) ID() string { return e.Info.ID() }

// Executable is the plugin's absolute path.
func (e Entry) Executable() string { return filepath.Join(e.root, e.Path) }

// Installed tells a plugin that was installed on this node from a built-in one.
func (e Entry) Installed() bool { return e.installed }

// mend says what to do about a plugin that is not what is on record.
func (e Entry) mend() string {
	if e.installed {
		return fmt.Sprintf("if you changed it, run `k3m component install %s` again", e.Executable())
	}
	return "the distribution was damaged after it was unpacked: remove " + e.root + " and start k3m again"
}

// record is the JSON form of both files.
type record struct {
	Version int     `json:"version"`
	Plugins []Entry `json:"plugins"`
}

// DecodeRecord reads the format of CatalogFile and LockFile. It is strict: what it does
// not know, it refuses.
func DecodeRecord(r io.Reader) ([]Entry, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxCatalogSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCatalogSize {
		return nil, fmt.Errorf("larger than %d bytes", maxCatalogSize)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var file record
	if err := d.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	if file.Version != formatVersion {
		return nil, fmt.Errorf("format version %d; this k3m reads %d", file.Version, formatVersion)
	}
	if len(file.Plugins) > maxPlugins {
		return nil, fmt.Errorf("more than %d plugins", maxPlugins)
	}
	for i, e := range file.Plugins {
		if err := e.validate(); err != nil {
			return nil, fmt.Errorf("plugins[%d]: %w", i, err)
		}
		if slices.ContainsFunc(file.Plugins[:i], func(o Entry) bool { return o.ID() == e.ID() }) {
			return nil, fmt.Errorf("plugins[%d]: %s is there twice", i, e.ID())
		}
	}
	return file.Plugins, nil
}

func (e Entry) validate() error {
	if err := e.Info.Validate(); err != nil {
		return err
	}
	if _, ok := KindNamed(e.Info.Kind); !ok {
		return fmt.Errorf("%s: unknown kind %q; known are %s", e.ID(), e.Info.Kind, strings.Join(KindNames(), ", "))
	}
	if !filepath.IsLocal(e.Path) || filepath.Clean(e.Path) != e.Path || strings.ContainsRune(e.Path, 0) {
		return fmt.Errorf("%s: path %q leads out of the plugins' directory or is not clean", e.ID(), e.Path)
	}
	if sum, err := hex.DecodeString(e.SHA256); err != nil || len(sum) != 32 || e.SHA256 != strings.ToLower(e.SHA256) {
		return fmt.Errorf("%s: sha256 %.80q is not a SHA-256 in lower-case hexadecimal", e.ID(), e.SHA256)
	}
	if slices.ContainsFunc(e.Args, func(a string) bool { return strings.ContainsRune(a, 0) }) {
		return fmt.Errorf("%s: an argument holds a zero byte", e.ID())
	}
	return nil
}

// EncodeRecord writes entries, sorted by ID, as DecodeRecord reads them.
func EncodeRecord(entries []Entry) ([]byte, error) {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.ID(), b.ID()) })
	data, err := json.MarshalIndent(record{Version: formatVersion, Plugins: entries}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode plugins: %w", err)
	}
	return append(data, '\n'), nil
}

// Catalog holds all plugins that a node can choose from.
type Catalog struct {
	entries []Entry
}

// NewCatalog makes a Catalog of entries whose executables are below root.
func NewCatalog(root string, entries ...Entry) *Catalog {
	c := &Catalog{}
	for _, e := range entries {
		e.root = root
		c.entries = append(c.entries, e)
	}
	return c
}

// Discover reads the distribution's catalog and, if there is one, the lock file of the
// installed plugins. An installed plugin with the ID of a built-in one is not used; it
// stays in the catalog as refused.
func Discover(bundleDir, dataDir string) (*Catalog, error) {
	builtin, err := readRecord(filepath.Join(bundleDir, "plugins", CatalogFile))
	if err != nil {
		return nil, fmt.Errorf("read the distribution's plugins: %w", err)
	}
	c := NewCatalog(bundleDir, builtin...)
	pluginsDir := filepath.Join(dataDir, "plugins")
	installed, err := readRecord(filepath.Join(pluginsDir, LockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read installed plugins: %w", err)
	}
	for _, e := range installed {
		e.root, e.installed, e.Default = pluginsDir, true, false
		if _, taken := c.Find(e.ID()); taken {
			e.refused = fmt.Errorf("the distribution has a component %s of its own: rename the plugin's, or `k3m component remove %s` the installed one", e.ID(), e.ID())
		}
		c.entries = append(c.entries, e)
	}
	return c, nil
}

func readRecord(path string) ([]Entry, error) {
	real, err := checkTrusted(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := DecodeRecord(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return entries, nil
}

// Entries returns all usable entries, by kind and then by name.
func (c *Catalog) Entries() []Entry {
	usable := slices.DeleteFunc(slices.Clone(c.entries), func(e Entry) bool { return e.refused != nil })
	order := KindNames()
	slices.SortStableFunc(usable, func(a, b Entry) int {
		if a.Info.Kind != b.Info.Kind {
			return slices.Index(order, a.Info.Kind) - slices.Index(order, b.Info.Kind)
		}
		return strings.Compare(a.Info.Name, b.Info.Name)
	})
	return usable
}

// Refused returns why plugins can't be used at all, by their path.
func (c *Catalog) Refused() map[string]error {
	out := map[string]error{}
	for _, e := range c.entries {
		if e.refused != nil {
			out[e.Executable()] = e.refused
		}
	}
	return out
}

// Find returns the usable entry of an ID.
func (c *Catalog) Find(id string) (Entry, bool) {
	for _, e := range c.entries {
		if e.ID() == id && e.refused == nil {
			return e, true
		}
	}
	return Entry{}, false
}

// ofKind returns the usable entries of a kind.
func (c *Catalog) ofKind(kind string) []Entry {
	return slices.DeleteFunc(c.Entries(), func(e Entry) bool { return e.Info.Kind != kind })
}
