// Package annotations reads an Ingress's annotations, those of ingress-nginx under the
// same names. A value that is wrong is a problem; where it would have guarded something
// (who may come in), the Ingress is denied rather than left open.
package annotations

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/conf"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/sdk/nearest"
)

// Prefix begins the names of the annotations.
const Prefix = "nginx.ingress.kubernetes.io/"

// Annotations are an Ingress's, checked.
type Annotations struct {
	// Policy is what holds for its locations. Secrets and backends are not in it yet.
	Policy model.Policy
	// Denied says why the Ingress's paths must not be served; empty for they may.
	Denied string

	UseRegex       bool
	AppRoot        string
	SSLRedirect    *bool
	ForceRedirect  *bool
	Aliases        []string
	FromToWWW      bool
	ServiceUp      *bool
	HashBy         string
	Ciphers        string
	PreferServer   *bool
	DefaultBackend string
	ServerSnippet  string

	// Canary is set for an Ingress that is the canary of another.
	Canary *model.Canary
	// Sticky is set for a cookie that keeps a client on its endpoint; its Path is empty for
	// that of the location.
	Sticky *model.Cookie
	// BasicAuth is set for a list of users in a secret.
	BasicAuth *BasicAuth
	// Limits are the rates and connections that one client may have.
	Limits Limits
}

// BasicAuth says where the users are.
type BasicAuth struct {
	Secret string
	// Map says that the secret's keys are the users; otherwise its key "auth" is a file.
	Map   bool
	Realm string
}

// Limits are what one client may have; 0 is no limit.
type Limits struct {
	PerSecond, PerMinute, Connections, Burst int
	Except                                   string
}

// Problem is an annotation that was not taken.
type Problem struct {
	// Name is the annotation's, without Prefix.
	Name string
	// Unsupported marks one that means something to ingress-nginx and nothing here.
	Unsupported bool
	// Snippet marks one that the operator didn't allow.
	Snippet bool
	Message string
}

// parser reads one Ingress's annotations.
type parser struct {
	out      *Annotations
	given    map[string]string
	snippets bool
	problems []Problem
}

// Parse reads annotations. snippets says that the operator allows nginx's own language.
func Parse(given map[string]string, snippets bool) (*Annotations, []Problem) {
	p := &parser{out: &Annotations{Policy: model.Policy{Protocol: model.HTTP}}, snippets: snippets}
	for name, text := range given {
		if short, ok := strings.CutPrefix(name, Prefix); ok {
			if p.given == nil {
				p.given = map[string]string{}
			}
			p.given[short] = text
		}
	}
	if p.given == nil {
		return p.out, nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.given)) {
		p.one(name, p.given[name])
	}
	p.auth()
	p.externalAuth()
	p.cors()
	p.limits()
	p.sticky()
	p.canary()
	p.redirects()
	return p.out, p.problems
}

// one reads an annotation that stands for itself.
func (p *parser) one(name, text string) {
	read, known := single[name]
	switch {
	case known:
		if err := read.take(p.out, text); err != nil {
			if read.guards {
				p.deny(name, err)
			} else {
				p.problem(name, "%v; the annotation is ignored", err)
			}
		}
	case snippetNames[name]:
		p.snippet(name, text)
	case grouped[name]:
	case guarding[name] != "":
		p.problems = append(p.problems, Problem{Name: name, Unsupported: true,
			Message: fmt.Sprintf("this is not supported (%s), and as it says who may come in, the Ingress's paths answer 503", guarding[name])})
		p.out.Denied = name
	case unsupported[name] != "":
		p.problems = append(p.problems, Problem{Name: name, Unsupported: true,
			Message: fmt.Sprintf("this is not supported and ignored: %s", unsupported[name])})
	default:
		p.problem(name, "unknown annotation, ignored%s", didYouMean(name))
	}
}

func (p *parser) problem(name, format string, args ...any) {
	p.problems = append(p.problems, Problem{Name: name, Message: fmt.Sprintf(format, args...)})
}

// deny closes the Ingress's paths, because what should have guarded them is wrong.
func (p *parser) deny(name string, err error) {
	p.problem(name, "%v; as it says who may come in, the Ingress's paths answer 503 until it is right", err)
	p.out.Denied = name
}

// get reads an annotation of a group where it is given, by read.
func get[T any](p *parser, name string, into *T, read func(string) (T, error)) (given bool) {
	text, ok := p.given[name]
	if !ok {
		return false
	}
	v, err := read(text)
	if err != nil {
		p.problem(name, "%v; the annotation is ignored", err)
		return false
	}
	*into = v
	return true
}

// guard is get for a value that says who may come in.
func guard[T any](p *parser, name string, into *T, read func(string) (T, error)) (given bool) {
	text, ok := p.given[name]
	if !ok {
		return false
	}
	v, err := read(text)
	if err != nil {
		p.deny(name, err)
		return false
	}
	*into = v
	return true
}

// maxSnippet bounds a piece of configuration, in bytes.
const maxSnippet = 32 << 10

var snippetNames = map[string]bool{"configuration-snippet": true, "server-snippet": true}

func (p *parser) snippet(name, text string) {
	switch {
	case !p.snippets:
		p.problems = append(p.problems, Problem{Name: name, Snippet: true, Message: "snippets are off, and as this one may say who may " +
			"come in, the Ingress's paths answer 503; take it away, or have the operator allow snippets"})
		p.out.Denied = name
	case len(text) > maxSnippet:
		p.deny(name, fmt.Errorf("%d bytes, want %d at most", len(text), maxSnippet))
	case snippetError(text) != nil:
		p.deny(name, snippetError(text))
	case name == "server-snippet":
		p.out.ServerSnippet = text
	default:
		p.out.Policy.Snippet = text
	}
}

// snippetError says what is wrong with a piece of configuration as far as words and blocks
// go; nginx knows the directives.
func snippetError(text string) error {
	_, err := conf.Parse(text)
	return err
}

func didYouMean(name string) string {
	known := slices.Sorted(maps.Keys(single))
	known = append(known, slices.Sorted(maps.Keys(grouped))...)
	if near := nearest.To(name, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// optional makes a reader's result a pointer.
func optional[T any](read func(string) (T, error)) func(string) (*T, error) {
	return func(text string) (*T, error) {
		v, err := read(text)
		if err != nil {
			return nil, err
		}
		return &v, nil
	}
}

// seconds is a cookie's age.
func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// Names are the annotations that are read, sorted, without Prefix.
func Names() []string {
	names := slices.Collect(maps.Keys(single))
	names = slices.AppendSeq(names, maps.Keys(grouped))
	names = slices.AppendSeq(names, maps.Keys(snippetNames))
	slices.Sort(names)
	return names
}

// NotSupported are the annotations of ingress-nginx that are known and not read: closing
// tells those that close the Ingress's paths.
func NotSupported() (closing, ignored []string) {
	return slices.Sorted(maps.Keys(guarding)), slices.Sorted(maps.Keys(unsupported))
}
