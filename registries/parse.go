package registries

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/k3m-io/k3m/sdk/nearest"
)

// limits of a file; what is above is a mistake.
const (
	maxEntries   = 1000
	maxEndpoints = 64
	maxRewrites  = 64
	maxPattern   = 1024
)

// parser holds what each step needs.
type parser struct {
	file  string
	check func(path string) error // of a file that is named
}

// refuse is a mistake at a place.
func (p parser) refuse(n *yaml.Node, format string, args ...any) error {
	return &Error{p.place(n), fmt.Sprintf(format, args...)}
}

func (p parser) place(n *yaml.Node) string { return fmt.Sprintf("%s:%d:%d", p.file, n.Line, n.Column) }

func parse(name string, text []byte, check func(string) error) (*Registries, error) {
	r := &Registries{}
	p := parser{name, check}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		return nil, &Error{name, strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " ")}
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, &Error{name, "holds more than one YAML document; the settings of registries are one"}
	}
	root := document.Content[0]
	if isNull(root) {
		return r, nil
	}
	err := p.mapping(root, "allowed", map[string]step{
		"mirrors": func(n *yaml.Node) error { return p.mirrors(n, r) },
		"configs": func(n *yaml.Node) error { return p.configs(n, r) },
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// step reads the value of one key.
type step func(n *yaml.Node) error

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// mapping reads keys and values of which all keys are known.
func (p parser) mapping(n *yaml.Node, what string, known map[string]step) error {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return p.entries(n, what, func(key, value *yaml.Node) error {
		read, ok := known[key.Value]
		if !ok {
			meant := ""
			if near := nearest.To(key.Value, names); near != "" {
				meant = fmt.Sprintf(", did you mean %q?", near)
			}
			return p.refuse(key, "unknown key %q%s; %s: %s", key.Value, meant, what, strings.Join(names, ", "))
		}
		if isNull(value) {
			return nil
		}
		return read(value)
	})
}

// entries reads keys and values; a key may stand once.
func (p parser) entries(n *yaml.Node, what string, read func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return p.refuse(n, "%s: want keys and values", what)
	}
	if len(n.Content)/2 > maxEntries {
		return p.refuse(n, "%s: more than %d entries", what, maxEntries)
	}
	seen := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || value.Kind == yaml.AliasNode {
			return p.refuse(key, "anchors, aliases and keys that are no plain text are not understood here; write it out")
		}
		if first, ok := seen[key.Value]; ok {
			return p.refuse(key, "key %q stands at %s already", key.Value, first)
		}
		seen[key.Value] = p.place(key)
		if err := read(key, value); err != nil {
			return err
		}
	}
	return nil
}

// text is a value that is one text.
func (p parser) text(what string, to *string) step {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || isNull(n) {
			return p.refuse(n, "%s takes one text", what)
		}
		*to = n.Value
		return nil
	}
}

func (p parser) mirrors(n *yaml.Node, r *Registries) error {
	return p.entries(n, "mirrors", func(key, value *yaml.Node) error {
		if err := p.registry(key, "mirrors"); err != nil {
			return err
		}
		m := Mirror{Registry: key.Value}
		if isNull(value) { // as with k3s: a registry of which nothing is said
			r.Mirrors = append(r.Mirrors, m)
			return nil
		}
		err := p.mapping(value, "a mirror takes", map[string]step{
			"endpoint": func(n *yaml.Node) error { return p.endpoints(n, &m) },
			"rewrite":  func(n *yaml.Node) error { return p.rewrites(n, &m) },
		})
		r.Mirrors = append(r.Mirrors, m)
		return err
	})
}

// hostPattern is host[:port] as it stands in the name of an image, or an IPv6 address.
var hostPattern = regexp.MustCompile(`^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$`)

func (p parser) registry(key *yaml.Node, where string) error {
	switch name := key.Value; {
	case name == Wildcard:
		return nil
	case strings.Contains(name, "://"):
		return p.refuse(key, "%s: %q has a scheme; write the host alone, as in the name of an image, such as registry.example.com:5000", where, name)
	case !hostPattern.MatchString(name):
		return p.refuse(key, "%s: %q is not a registry: want a host and perhaps a port, such as docker.io or registry.example.com:5000, or \"*\"", where, name)
	}
	return nil
}

func (p parser) endpoints(n *yaml.Node, m *Mirror) error {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	if len(items) > maxEndpoints {
		return p.refuse(n, "endpoint takes at most %d", maxEndpoints)
	}
	for _, item := range items {
		var text string
		if err := p.text("endpoint", &text)(item); err != nil {
			return err
		}
		u, err := endpointURL(text)
		if err != nil {
			return p.refuse(item, "endpoint %q: %v; want one such as https://mirror.example.com:5000", redact(text), err)
		}
		// What stands twice would be asked twice.
		if !slices.ContainsFunc(m.Endpoints, func(e Endpoint) bool { return *e.URL == *u }) {
			m.Endpoints = append(m.Endpoints, Endpoint{URL: u})
		}
	}
	return nil
}

// redact hides a password that was written into a URL.
func redact(text string) string {
	before, after, ok := strings.Cut(text, "@")
	if !ok {
		return text
	}
	scheme, _, ok := strings.Cut(before, "://")
	if !ok {
		return "…@" + after
	}
	return scheme + "://…@" + after
}

func endpointURL(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is no URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("its scheme is %q", u.Scheme)
	case u.User != nil:
		return nil, errors.New("user and password belong below configs, auth")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("it has a query or a fragment")
	case !hostPattern.MatchString(u.Host):
		return nil, errors.New("it names no host")
	}
	if u.Path != "" {
		u.Path = path.Clean(u.Path)
	}
	if u.Path == "/" || u.Path == "/v2" {
		u.Path = ""
	}
	u.RawPath = ""
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}, nil
}

func (p parser) rewrites(n *yaml.Node, m *Mirror) error {
	return p.entries(n, "rewrite", func(key, value *yaml.Node) error {
		if len(m.Rewrites) == maxRewrites {
			return p.refuse(key, "rewrite takes at most %d patterns", maxRewrites)
		}
		if len(key.Value) > maxPattern {
			return p.refuse(key, "rewrite: the pattern is longer than %d bytes", maxPattern)
		}
		pattern, err := regexp.Compile(key.Value)
		if err != nil {
			return p.refuse(key, "rewrite: %q is no regular expression of Go's: %v", key.Value, err)
		}
		var replacement string
		if err := p.text("rewrite", &replacement)(value); err != nil {
			return err
		}
		if len(replacement) > maxPattern {
			return p.refuse(value, "rewrite: the replacement is longer than %d bytes", maxPattern)
		}
		m.Rewrites = append(m.Rewrites, Rewrite{pattern, replacement})
		return nil
	})
}

func (p parser) configs(n *yaml.Node, r *Registries) error {
	return p.entries(n, "configs", func(key, value *yaml.Node) error {
		if err := p.registry(key, "configs"); err != nil {
			return err
		}
		h := Host{Name: key.Value}
		if isNull(value) {
			return nil
		}
		err := p.mapping(value, "a config takes", map[string]step{
			"auth": func(n *yaml.Node) error { return p.auth(n, &h.Auth) },
			"tls":  func(n *yaml.Node) error { return p.tls(n, &h.TLS) },
		})
		r.Hosts = append(r.Hosts, h)
		return err
	})
}

func (p parser) auth(n *yaml.Node, a *Auth) error {
	var encoded string
	err := p.mapping(n, "auth takes", map[string]step{
		"username":       p.text("username", &a.Username),
		"password":       p.text("password", &a.Password),
		"auth":           p.text("auth", &encoded),
		"identity_token": p.text("identity_token", &a.IdentityToken),
	})
	if err != nil {
		return err
	}
	ways := 0
	for _, given := range []bool{a.Username != "" || a.Password != "", encoded != "", a.IdentityToken != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return p.refuse(n, "auth: give username and password, or auth, or identity_token; one of them")
	}
	if a.Username == "" && a.Password != "" || a.Username != "" && a.Password == "" {
		return p.refuse(n, "auth: give username and password, both of them")
	}
	if encoded == "" {
		return nil
	}
	plain, err := base64.StdEncoding.DecodeString(encoded)
	user, password, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok || user == "" {
		return p.refuse(n, "auth: auth is not the base64 of username:password")
	}
	a.Username, a.Password = user, strings.Trim(password, "\x00")
	return nil
}

func (p parser) tls(n *yaml.Node, t *TLS) error {
	file := func(what string, to *string) step {
		return func(n *yaml.Node) error {
			if err := p.text(what, to)(n); err != nil {
				return err
			}
			if !filepath.IsAbs(*to) {
				return p.refuse(n, "%s: %q is not an absolute path", what, *to)
			}
			if err := p.check(*to); err != nil {
				return p.refuse(n, "%s: %v", what, err)
			}
			return nil
		}
	}
	err := p.mapping(n, "tls takes", map[string]step{
		"ca_file":   file("ca_file", &t.CAFile),
		"cert_file": file("cert_file", &t.CertFile),
		"key_file":  file("key_file", &t.KeyFile),
		"insecure_skip_verify": func(n *yaml.Node) error {
			if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
				return p.refuse(n, "insecure_skip_verify is true or false")
			}
			t.InsecureSkipVerify = n.Value == "true"
			return nil
		},
	})
	if err == nil && t.KeyFile != "" && t.CertFile == "" {
		return p.refuse(n, "tls: key_file without cert_file; give both")
	}
	return err
}
