package render

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// auth asks another server whether a request may come in.
func (r *renderer) auth(w *writer, s *serverState, loc *model.Location) {
	auth := loc.Policy.Auth
	if auth == nil {
		return
	}
	key := id(auth.URL, auth.Method, auth.SignIn, auth.RedirectParam)
	path := token(`"/_k3m_auth_` + key + `"`)
	w.line("auth_request", path)
	for _, name := range auth.ResponseHeaders {
		if from, ok := header("upstream_http_", name); ok {
			to, _ := header("k3m_auth_", name)
			w.line("auth_request_set", to, from)
		}
	}
	if s.extra("auth " + key) {
		r.authLocation(&s.extras, auth, path)
	}
	if auth.SignIn == "" {
		return
	}
	w.line("error_page", "401", "=", "@k3m_signin_"+token(key))
	if s.extra("signin " + key) {
		w := &s.extras
		w.open("location", "@k3m_signin_"+token(key))
		w.line("return", "302", r.signIn(auth))
		w.close()
	}
}

// extra tells whether a location of a server's own has to be written, once.
func (s *serverState) extra(key string) bool {
	if s.done == nil {
		s.done = map[string]bool{}
		s.extras.depth = 2
	}
	if s.done[key] {
		return false
	}
	s.done[key] = true
	return true
}

// authLocation is where the question goes out.
func (r *renderer) authLocation(w *writer, auth *model.ExternalAuth, path token) {
	w.open("location", "=", path)
	w.line("internal")
	w.allowAll()
	w.line("access_log", "off")
	w.line("proxy_pass_request_body", "off")
	if auth.Method != "" {
		w.line("proxy_method", word(auth.Method))
	}
	pairs := r.forwarded(false)
	pairs = with(pairs, "Host", authHost(auth.URL))
	pairs = with(pairs, "Upgrade", `""`)
	pairs = with(pairs, "Connection", `""`)
	pairs = with(pairs, "Content-Length", `""`)
	pairs = with(pairs, "X-Original-URL", `"${k3m_scheme}://${http_host}${request_uri}"`)
	pairs = with(pairs, "X-Original-Method", "$request_method")
	pairs = with(pairs, "X-Auth-Request-Redirect", "$request_uri")
	w.headers("proxy_set_header", pairs)
	w.line("proxy_ssl_server_name", "on")
	// A variable makes nginx look the name up when it asks, not once at its start.
	w.line("set", "$k3m_auth_url", template(auth.URL))
	w.line("proxy_pass", "$k3m_auth_url")
	w.close()
}

// authHost is the host that the question is for.
func authHost(text string) token {
	return template(strings.TrimSuffix(annotations.Authority(text), "$request_uri"))
}

// signIn is where a client is sent, with the place that it came from.
func (r *renderer) signIn(auth *model.ExternalAuth) token {
	to := template(auth.SignIn)
	// Only to find out whether the parameter is there.
	if parsed, err := url.Parse(auth.SignIn); auth.RedirectParam == "" || err == nil && parsed.Query().Has(auth.RedirectParam) {
		return to
	}
	joint := "?"
	if strings.Contains(auth.SignIn, "?") {
		joint = "&"
	}
	return `"` + strip(to) + strip(quote(joint+auth.RedirectParam+"=")) + `${k3m_scheme}://${http_host}${k3m_escaped_uri}"`
}

// errorPages sends errors to the backend that answers for them.
func (r *renderer) errorPages(w *writer, s *serverState, loc *model.Location) {
	policy := loc.Policy
	if len(policy.Errors) == 0 || policy.ErrorBackend.Empty() {
		return
	}
	w.line(directive(policy.Protocol)+"_intercept_errors", "on")
	key := id(loc.Owner.String(), loc.Service, loc.Port, policy.ErrorBackend.Upstream, policy.ErrorBackend.External)
	for _, code := range policy.Errors {
		if code < 300 || code > 599 || code == 499 || policy.Auth != nil && policy.Auth.SignIn != "" && code == 401 {
			continue
		}
		name := "@k3m_error_" + number(code) + "_" + token(key)
		w.line("error_page", number(code), "=", name)
		if s.extra(string(name)) {
			r.errorLocation(&s.extras, loc, code, name)
		}
	}
}

func (r *renderer) errorLocation(w *writer, loc *model.Location, code int, name token) {
	w.open("location", name)
	w.allowAll()
	pairs := append(r.forwarded(false),
		pair{"X-Code", quote(strconv.Itoa(code))}, pair{"X-Format", "$http_accept"}, pair{"X-Original-URI", "$request_uri"},
		pair{"X-Namespace", quote(loc.Owner.Namespace)}, pair{"X-Ingress-Name", quote(loc.Owner.Name)},
		pair{"X-Service-Name", quote(loc.Service)}, pair{"X-Service-Port", quote(loc.Port)})
	w.headers("proxy_set_header", pairs)
	w.line("rewrite", "^", "/", "break")
	backend := loc.Policy.ErrorBackend
	switch {
	case backend.Upstream != "":
		w.line("proxy_pass", "http://"+upstream(backend.Upstream))
	case externalText.MatchString(backend.External):
		w.line("set", "$k3m_external", text(backend.External))
		w.line("proxy_pass", "http://$k3m_external")
	default:
		w.line("return", number(code))
	}
	w.close()
}

// backendHeaders writes the headers that a backend is sent, where they are not everybody's.
func (r *renderer) backendHeaders(w *writer, loc *model.Location) {
	p := loc.Policy
	own := p.UpstreamHost != "" || p.ForwardedPrefix != "" || p.ConnectionHeader != "" || p.Auth != nil && len(p.Auth.ResponseHeaders) > 0
	if !own {
		return
	}
	kind := directive(p.Protocol)
	pairs := r.forwarded(kind == "grpc")
	if p.UpstreamHost != "" {
		pairs = with(pairs, "Host", quote(p.UpstreamHost))
	}
	if p.ForwardedPrefix != "" {
		pairs = with(pairs, "X-Forwarded-Prefix", quote(p.ForwardedPrefix))
	}
	if p.ConnectionHeader != "" && kind != "grpc" {
		pairs = with(pairs, "Connection", quote(p.ConnectionHeader))
	}
	if p.Auth != nil {
		for _, name := range p.Auth.ResponseHeaders {
			if from, ok := header("k3m_auth_", name); ok {
				pairs = with(pairs, token(name), from)
			}
		}
	}
	w.headers(kind+"_set_header", pairs)
}

// backendName tells a backend that speaks TLS which host is meant. Hosts elsewhere mostly want to
// know.
func (r *renderer) backendName(w *writer, loc *model.Location) {
	p := loc.Policy
	if p.Protocol != model.HTTPS && p.Protocol != model.GRPCS || !p.SendName && loc.Backend.External == "" {
		return
	}
	kind := directive(p.Protocol)
	w.line(kind+"_ssl_server_name", "on")
	if p.BackendName != "" {
		w.line(kind+"_ssl_name", quote(p.BackendName))
	}
}
