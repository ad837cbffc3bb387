// Package registries reads registries.yaml: from where a node pulls images, and with what.
// The format is the one of k3s.
//
// parse.go reads the text, strictly: each mistake is answered with its file, line and
// column. Where images come from in the end (endpoints, their order, credentials) is told
// by Registries' methods, so that every runtime does the same.
package registries

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"slices"
)

// DefaultFile is where the file is looked for unless the configuration says otherwise.
const DefaultFile = "/etc/k3m/registries.yaml"

// Wildcard stands for all registries that have no entry of their own.
const Wildcard = "*"

// maxFile is the most bytes that a file may have.
const maxFile = 1 << 20

// Registries is a file's content. The zero value is an empty file. It is not changed after
// it was read, and may be used by several goroutines.
type Registries struct {
	// Mirrors are in the order of the file, one for each registry.
	Mirrors []Mirror
	// Hosts are what `configs` says of hosts, one for each.
	Hosts []Host
}

// Mirror says from where images of a registry are pulled.
type Mirror struct {
	// Registry is the host[:port] in images' names, or Wildcard.
	Registry string
	// Endpoints are tried in this order, before the registry itself.
	Endpoints []Endpoint
	// Rewrites change the names of repositories for the endpoints: the first whose pattern
	// matches.
	Rewrites []Rewrite
}

// Endpoint is where a registry's images can be pulled from too.
type Endpoint struct {
	// URL has a scheme, http or https, and a host. Its path is empty, or what stands in
	// place of "/v2".
	URL *url.URL
}

// Rewrite is one pattern, and what stands in its place.
type Rewrite struct {
	Pattern     *regexp.Regexp
	Replacement string
}

// Host is how a host is talked to, be it an endpoint or a registry itself.
type Host struct {
	// Name is host[:port], or Wildcard.
	Name string
	Auth Auth
	TLS  TLS
}

// Auth is what a host is shown: user and password, or an OAuth2 refresh token. It must not
// be logged.
type Auth struct {
	Username, Password string
	IdentityToken      string
}

// Empty says that nothing is shown.
func (a Auth) Empty() bool { return a == Auth{} }

// TLS is how a host's certificate is checked, and the node's own. Paths are absolute.
type TLS struct {
	CAFile, CertFile, KeyFile string
	InsecureSkipVerify        bool
}

// Error is a mistake in a file.
type Error struct {
	// Source is "file:line:column".
	Source string
	// Message says what was found, what is allowed and how to mend it.
	Message string
}

func (e *Error) Error() string { return e.Source + ": " + e.Message }

// Read reads a file. The files that it names must be there. A file that is not there itself
// is an error that wraps fs.ErrNotExist.
func Read(name string) (*Registries, error) {
	text, err := readSmall(name)
	if err != nil {
		return nil, fmt.Errorf("read the settings of registries: %w", err)
	}
	return parse(name, text, func(path string) error {
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() {
			err = errors.New("it is not a file")
		}
		return err
	})
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	return text, err
}

// Parse reads a text; name is for error messages. The files that it names are not looked at.
func Parse(name string, text []byte) (*Registries, error) {
	return parse(name, text, func(string) error { return nil })
}

// Mirror is what the file says of a registry; the wildcard's, if it has no entry of its own.
func (r *Registries) Mirror(registry string) (Mirror, bool) {
	for _, wanted := range []string{registry, Wildcard} {
		if i := slices.IndexFunc(r.Mirrors, func(m Mirror) bool { return m.Registry == wanted }); i >= 0 {
			return r.Mirrors[i], true
		}
	}
	return Mirror{}, false
}

// Host is how to talk to host[:port]; the wildcard's, if it has no entry of its own. Docker's
// registry has two names: docker.io in those of images, and that of its server.
func (r *Registries) Host(name string) Host {
	wanted := []string{name, Wildcard}
	if name == DockerServer {
		wanted = []string{name, Docker, Wildcard}
	}
	for _, w := range wanted {
		if i := slices.IndexFunc(r.Hosts, func(h Host) bool { return h.Name == w }); i >= 0 {
			return r.Hosts[i]
		}
	}
	return Host{Name: name}
}

// The names of Docker's registry.
const (
	Docker       = "docker.io"
	DockerServer = "registry-1.docker.io"
)

// Secrets tells whether the file holds credentials.
func (r *Registries) Secrets() bool {
	return slices.ContainsFunc(r.Hosts, func(h Host) bool { return !h.Auth.Empty() })
}

// Names are the registries that the file says something of: mirrors, then hosts that are no
// mirror, the wildcard included.
func (r *Registries) Names() []string {
	var names []string
	for _, m := range r.Mirrors {
		names = append(names, m.Registry)
	}
	for _, h := range r.Hosts {
		if !slices.Contains(names, h.Name) {
			names = append(names, h.Name)
		}
	}
	return names
}

// Rewrite is the name of a repository at the mirror's endpoints.
func (m Mirror) Rewrite(repository string) string {
	for _, r := range m.Rewrites {
		if r.Pattern.MatchString(repository) {
			return cmp.Or(r.Pattern.ReplaceAllString(repository, r.Replacement), repository)
		}
	}
	return repository
}

// IsNotExist tells whether Read found no file.
func IsNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
