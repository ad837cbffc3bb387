package pull

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"

	"github.com/k3m-io/k3m/registries"
)

// marker begins each file that is written here; others are their owner's.
const marker = "# Written by k3m"

// Settings are what registries.yaml says at present. Its methods may be called by several
// goroutines at once.
type Settings struct {
	dir       string
	noDefault bool

	mu      sync.RWMutex // held for reading while one pull looks at files and current
	current *registries.Registries
	own     []string // registries whose file in dir was made by the operator
}

// NewSettings keeps hosts.toml files below dir, containerd's config_path. With noDefault, a
// registry that has mirrors is not asked itself. Until Apply, nothing is configured.
func NewSettings(dir string, noDefault bool) *Settings {
	return &Settings{dir: dir, noDefault: noDefault, current: &registries.Registries{}}
}

// Dir is the directory of the files.
func (s *Settings) Dir() string { return s.dir }

// Current is what was applied last.
func (s *Settings) Current() *registries.Registries {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current
}

// Apply writes the files for r, whose source is named in them, and removes those that an
// earlier call wrote and r has no use for. A file that the operator made stays and wins; the
// registries of such files are returned.
func (s *Settings) Apply(r *registries.Registries, source string) (own []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = r
	names := map[string]string{} // by directory
	for _, name := range r.Names() {
		if name == registries.DockerServer { // nobody's images have that name
			name = registries.Docker
		}
		names[directory(name)] = name
	}
	if err := s.removeBut(names); err != nil {
		return nil, fmt.Errorf("remove the settings of registries that are not configured any more: %w", err)
	}
	s.own = nil
	for dir, name := range names {
		file := filepath.Join(s.dir, dir, "hosts.toml")
		if isOperators(file) {
			s.own = append(s.own, name)
			continue
		}
		if err := writeFile(file, s.render(r, name, source)); err != nil {
			return nil, fmt.Errorf("write the settings of registry %s: %w", name, err)
		}
	}
	slices.Sort(s.own)
	return slices.Clone(s.own), nil
}

// removeBut removes the files of all registries that are not named.
func (s *Settings) removeBut(names map[string]string) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		file := filepath.Join(s.dir, e.Name(), "hosts.toml")
		if names[e.Name()] != "" || !e.IsDir() || !isOurs(file) {
			continue
		}
		if err := os.Remove(file); err != nil {
			return err
		}
		// It stays if something else is in it.
		_ = os.Remove(filepath.Dir(file))
	}
	return nil
}

func isOurs(file string) bool {
	text, err := os.ReadFile(file)
	return err == nil && strings.HasPrefix(string(text), marker)
}

func isOperators(file string) bool {
	_, err := os.Lstat(file)
	return err == nil && !isOurs(file)
}

func writeFile(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	next := file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// directory is where containerd looks for a registry's settings.
func directory(name string) string {
	if name == registries.Wildcard {
		return "_default"
	}
	if i := strings.LastIndex(name, ":"); i > 0 && !strings.HasSuffix(name, "]") {
		return name[:i] + "_" + name[i+1:] + "_"
	}
	return name
}

// host is one place to pull from.
type host struct {
	// url is nil for the registry itself.
	url     *url.URL
	tls     registries.TLS
	rewrite registries.Mirror
}

// hosts are the places to pull a registry's images from, in this order.
func (s *Settings) hosts(r *registries.Registries, name string) []host {
	m, _ := r.Mirror(name)
	var all []host
	for _, e := range m.Endpoints {
		all = append(all, host{e.URL, r.Host(e.URL.Host).TLS, m})
	}
	itself := "https://" + server(name)
	last := len(all) - 1
	if last >= 0 && (s.noDefault || all[last].url.String() == itself) {
		return all
	}
	return append(all, host{tls: r.Host(server(name)).TLS})
}

// server is the host that serves the images of a registry.
func server(name string) string {
	if name == registries.Docker {
		return registries.DockerServer
	}
	return name
}

// hostFile is a hosts.toml. The last host is at its top, the others below `host`.
type hostFile struct {
	Server string `toml:"server,omitempty"`
	hostSettings
}

type hostSettings struct {
	Capabilities []string    `toml:"capabilities,omitempty"`
	CA           string      `toml:"ca,omitempty"`
	Client       [][2]string `toml:"client,omitempty"`
	SkipVerify   bool        `toml:"skip_verify,omitempty"`
	OverridePath bool        `toml:"override_path,omitempty"`
}

// render is the text of a registry's hosts.toml.
func (s *Settings) render(r *registries.Registries, name, source string) []byte {
	all := s.hosts(r, name)
	last := all[len(all)-1]
	top := hostFile{hostSettings: last.settings()}
	if last.url != nil {
		top.Server = last.url.String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s from %s; what is changed here is lost.\n", marker, source)
	b.Write(encode(top))
	for _, h := range all[:len(all)-1] {
		settings := h.settings()
		settings.Capabilities = []string{"pull", "resolve"} // nobody pushes to a mirror
		// containerd takes the order of the tables for that of the hosts, and a map has none.
		fmt.Fprintf(&b, "\n[host.%q]\n%s", h.url.String(), encode(settings))
	}
	return []byte(b.String())
}

func (h host) settings() hostSettings {
	t := hostSettings{CA: h.tls.CAFile, SkipVerify: h.tls.InsecureSkipVerify, OverridePath: h.url != nil && h.url.Path != ""}
	if h.tls.CertFile != "" {
		t.Client = [][2]string{{h.tls.CertFile, h.tls.KeyFile}}
	}
	return t
}

func encode(v any) []byte {
	text, err := toml.Marshal(v)
	if err != nil {
		panic(err) // texts and booleans can be written
	}
	return text
}
