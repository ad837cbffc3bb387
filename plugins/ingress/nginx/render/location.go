package render

import (
	"regexp"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// location writes a path. One that takes a path and what is below it takes two locations of
// nginx's.
func (r *renderer) location(w *writer, s *serverState, loc *model.Location) {
	w.own(loc.Owner)
	for _, head := range heads(loc) {
		if s.used[head.key] {
			continue
		}
		s.used[head.key] = true
		w.open(append([]token{"location"}, head.tokens...)...)
		r.body(w, s, loc)
		w.close()
	}
}

// head is what a location begins with.
type head struct {
	key    string
	tokens []token
}

func heads(loc *model.Location) []head {
	path := loc.Path
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	expression := func(operator token, re string) []head {
		return []head{{key: string(operator) + re, tokens: []token{operator, text(re)}}}
	}
	literal := regexp.QuoteMeta(path)
	switch {
	case loc.Match == model.Regex:
		return expression("~*", pathRegex(path))
	case loc.Match == model.Prefix && path == "/" && loc.Ordered:
		return expression("~", "^/")
	case loc.Match == model.Prefix && path == "/":
		return []head{{key: "/", tokens: []token{`"/"`}}}
	case loc.Match == model.Prefix && loc.Ordered:
		return expression("~", `^`+literal+`(?:/|\z)`)
	case loc.Match == model.Prefix:
		// Without the first, nginx would redirect the path itself to the one with a slash.
		return []head{{key: "=" + path, tokens: []token{"=", text(path)}}, {key: path + "/", tokens: []token{text(path + "/")}}}
	case loc.Match == model.TextPrefix && loc.Ordered:
		return expression("~", `^`+literal)
	case loc.Match == model.TextPrefix:
		return []head{{key: path, tokens: []token{text(path)}}}
	case len(path) > 1 && path[len(path)-1] == '/':
		// As "= /path/", nginx would redirect /path to it, which may be another backend's.
		return expression("~", `^`+literal+`\z`)
	default:
		return []head{{key: "=" + path, tokens: []token{"=", text(path)}}}
	}
}

// pathRegex is a path's expression, from the start of a request's path.
func pathRegex(path string) string { return "^(?:" + path + ")" }

// body writes how requests are treated, in the order in which nginx does: rewrites and
// returns, then who may come in and how often, then the backend.
func (r *renderer) body(w *writer, s *serverState, loc *model.Location) {
	if loc.Denied != "" {
		w.line("return", "503")
		return
	}
	policy := r.policy(loc.Policy)
	if loc.RedirectHTTPS && !s.https {
		r.toHTTPS(w)
	}
	r.answers(w, s, loc)
	r.errorPages(w, s, loc)
	if redirect := loc.Policy.Redirect; redirect != nil {
		w.line("return", number(redirect.Code), template(redirect.URL))
		return
	}
	if loc.Backend.Empty() && loc.Canary == nil {
		w.line("return", "503")
		return
	}
	target := r.target(w, loc)
	if loc.Policy.Rewrite != "" {
		from := "^"
		if loc.Match == model.Regex {
			from = "(?i)" + pathRegex(loc.Path)
		}
		w.line("rewrite", text(from), rewritten(loc.Policy.Rewrite), "break")
	}
	r.auth(w, s, loc)
	w.buf.WriteString(policy.text)
	w.lines += policy.lines
	r.backendHeaders(w, loc)
	r.backendName(w, loc)
	w.line(directive(loc.Policy.Protocol)+"_pass", scheme(loc.Policy.Protocol)+target)
	w.snippet(r.set.LocationSnippet)
	w.snippet(loc.Policy.Snippet)
}

// target is the upstream: a name, or a variable that holds one.
func (r *renderer) target(w *writer, loc *model.Location) token {
	switch {
	case loc.Canary != nil:
		chosen := r.canary(loc)
		if loc.Backend.Empty() {
			w.open("if", "("+chosen, "=", `"")`)
			w.line("return", "503")
			w.close()
		}
		return chosen
	case loc.Backend.External != "":
		if !externalText.MatchString(loc.Backend.External) {
			return "invalid"
		}
		// A variable makes nginx look the name up when it is asked for, not once at its start.
		w.line("set", "$k3m_external", text(loc.Backend.External))
		return "$k3m_external"
	default:
		return upstream(loc.Backend.Upstream)
	}
}

// directive begins the names of the directives for a protocol.
func directive(protocol model.Protocol) token {
	if protocol == model.GRPC || protocol == model.GRPCS {
		return "grpc"
	}
	return "proxy"
}

func scheme(protocol model.Protocol) token {
	switch protocol {
	case model.HTTPS:
		return "https://"
	case model.GRPC:
		return "grpc://"
	case model.GRPCS:
		return "grpcs://"
	default:
		return "http://"
	}
}

// answers writes what goes to the client: cookies and what browsers ask of other origins.
func (r *renderer) answers(w *writer, s *serverState, loc *model.Location) {
	var cookie *model.Cookie
	for _, up := range []string{loc.Backend.Upstream, canaryUpstream(loc)} {
		if found := r.upstream(up); found != nil && found.Sticky != nil {
			cookie = found.Sticky
		}
	}
	cors := loc.Policy.CORS
	if cookie == nil && cors == nil {
		return
	}
	// A location with headers of its own has none of its server's.
	if s.HTTPS && r.set.HSTS {
		w.line("add_header", "Strict-Transport-Security", "$k3m_hsts", "always")
	}
	if cookie != nil {
		w.line("add_header", "Set-Cookie", r.setCookie(cookie), "always")
	}
	if cors != nil {
		r.cors(w, loc.Policy)
	}
}

func canaryUpstream(loc *model.Location) string {
	if loc.Canary == nil {
		return ""
	}
	return loc.Canary.Backend.Upstream
}

// upstream finds one by its name.
func (r *renderer) upstream(name string) *model.Upstream {
	if name == "" {
		return nil
	}
	return r.byName[name]
}
