package render

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// server writes a virtual host; the first is the default one.
func (r *renderer) server(w *writer, s *model.Server, first bool) {
	w.own(s.Owner)
	w.open("server")
	r.listen(w, first)
	r.names(w, s, first)
	r.certificate(w, s, first)
	if s.HTTPS && r.set.HSTS {
		w.line("add_header", "Strict-Transport-Security", "$k3m_hsts", "always")
	}
	w.snippet(r.set.ServerSnippet)
	w.snippet(s.Snippet)
	if s.RedirectTo != "" {
		w.line("return", number(r.set.RedirectCode), `"${k3m_scheme}://`+token(strings.Trim(string(quote(s.RedirectTo)), `"`))+
			`${k3m_port_suffix}${request_uri}"`)
		w.close()
		return
	}
	state := &serverState{Server: s, used: map[string]bool{}, https: redirectAll(s)}
	if state.https {
		r.toHTTPS(w)
	}
	if s.AppRoot != "" {
		w.open("if", "($uri", "=", `"/")`)
		w.line("return", "302", `"${k3m_scheme}://${http_host}`+strip(template(s.AppRoot))+`"`)
		w.close()
	}
	for _, loc := range s.Locations {
		r.location(w, state, loc)
	}
	w.own(s.Owner)
	if fallback := s.Fallback; fallback != nil && !state.used["/"] {
		plain := *fallback
		plain.Path, plain.Match, plain.Ordered = "/", model.Prefix, false
		r.location(w, state, &plain)
	} else if !state.used["/"] {
		w.open("location", "/")
		w.line("return", "404")
		w.close()
	}
	w.own(s.Owner)
	state.extras.depth = 0
	w.add(&state.extras)
	w.close()
}

// serverState is a server while its locations are written.
type serverState struct {
	*model.Server
	// used are the heads of locations, of which there may be one each.
	used map[string]bool
	// https says that the whole server sends clients to HTTPS.
	https bool
	// extras are the locations that others need; done names those that are written.
	extras writer
	done   map[string]bool
}

// strip takes a token's quotes off, to be written within others.
func strip(t token) token { return t[1 : len(t)-1] }

// redirectAll tells whether every location sends clients to HTTPS.
func redirectAll(s *model.Server) bool {
	for _, loc := range s.Locations {
		if !loc.RedirectHTTPS {
			return false
		}
	}
	return len(s.Locations) > 0 && (s.Fallback == nil || s.Fallback.RedirectHTTPS)
}

func (r *renderer) toHTTPS(w *writer) {
	w.open("if", "($k3m_to_https)")
	w.line("return", number(r.set.RedirectCode), `"https://${host}`+strip(suffix(r.env.HTTPSPort, 443))+`${request_uri}"`)
	w.close()
}

// listen writes the addresses; what is said of the sockets, the default server says.
func (r *renderer) listen(w *writer, first bool) {
	one := func(addr netip.AddrPort, ssl bool) {
		tokens := []token{"listen", address(addr)}
		if first {
			tokens = append(tokens, "default_server", "backlog=4096")
			if r.set.ReusePort {
				tokens = append(tokens, "reuseport")
			}
		}
		if r.set.ProxyProtocol {
			tokens = append(tokens, "proxy_protocol")
		}
		if ssl {
			tokens = append(tokens, "ssl")
			if r.set.HTTP2 && !r.http2Directive() {
				tokens = append(tokens, "http2")
			}
		}
		w.line(tokens...)
	}
	for _, addr := range r.env.HTTP {
		one(addr, false)
	}
	for _, addr := range r.env.HTTPS {
		one(addr, true)
	}
}

// hostText are the host names that are written; others are left out.
var hostText = regexp.MustCompile(`^(?:\*\.)?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$`)

// names writes the host names. A star is one label, as Ingresses have it; nginx's own
// star would be any number of them.
func (r *renderer) names(w *writer, s *model.Server, first bool) {
	tokens := []token{"server_name"}
	for _, host := range s.Hosts {
		if !hostText.MatchString(host) {
			continue
		}
		if parent, wild := strings.CutPrefix(host, "*."); wild {
			tokens = append(tokens, text(`~^[^.]+\.`+regexp.QuoteMeta(parent)+`$`))
		} else {
			tokens = append(tokens, token(host))
		}
	}
	if first || len(tokens) == 1 {
		tokens = append(tokens[:1:1], "_")
	}
	w.line(tokens...)
}

// certificate writes the host's certificate. A host without one answers with the default
// server's.
func (r *renderer) certificate(w *writer, s *model.Server, first bool) {
	if len(r.env.HTTPS) == 0 {
		return
	}
	pair := s.Certificate
	if first {
		pair = r.cfg.Certificate
		if r.set.SSLRejectHandshake && r.env.Nginx.AtLeast(1, 19, 4) {
			w.line("ssl_reject_handshake", "on")
		}
	}
	if pair != nil {
		path := "tls/" + fileName(pair.ID) + ".pem"
		if _, ok := r.files[path]; !ok {
			data := append(append([]byte{}, pair.Cert...), pair.Key...)
			r.files[path] = File{Path: path, Data: data, Secret: true}
		}
		w.line("ssl_certificate", text(r.env.Dir+"/"+path))
		w.line("ssl_certificate_key", text(r.env.Dir+"/"+path))
	}
	if s.Ciphers != "" {
		w.line("ssl_ciphers", text(s.Ciphers))
	}
	if s.PreferServerCiphers != nil {
		w.line("ssl_prefer_server_ciphers", onOff(*s.PreferServerCiphers))
	}
}

var fileText = regexp.MustCompile(`^[a-z0-9]{1,64}$`)

// fileName is an ID, where it is fit for a file's name.
func fileName(s string) string {
	if fileText.MatchString(s) {
		return s
	}
	return id(s)
}
