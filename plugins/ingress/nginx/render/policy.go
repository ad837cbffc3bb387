package render

import (
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// policyText is what a policy writes into each of its locations.
type policyText struct {
	text  string
	lines int
}

// policy writes what doesn't depend on the location, once.
func (r *renderer) policy(p *model.Policy) *policyText {
	if had := r.bodies[p]; had != nil {
		return had
	}
	w := &writer{depth: 3}
	r.access(w, p)
	r.bounds(w, p)
	r.transfer(w, p)
	if p.NoAccessLog {
		w.line("access_log", "off")
	}
	made := &policyText{text: w.buf.String(), lines: w.lines}
	r.bodies[p] = made
	return made
}

// access says who may come in.
func (r *renderer) access(w *writer, p *model.Policy) {
	if p.SatisfyAny {
		w.line("satisfy", "any")
	}
	if len(p.Allow)+len(p.Deny) > 0 {
		// What a location says of addresses takes the place of what all have.
		allow, deny := p.Allow, p.Deny
		if len(allow) == 0 {
			allow = r.set.Allow
		}
		if len(deny) == 0 {
			deny = r.set.Deny
		}
		r.addresses(w, unique(allow), unique(deny))
	}
	if auth := p.BasicAuth; auth != nil {
		w.line("auth_basic", quote(auth.Realm))
		path := "users/" + fileName(auth.Users.ID)
		r.files[path] = File{Path: path, Data: auth.Users.Data, Secret: true}
		w.line("auth_basic_user_file", text(r.env.Dir+"/"+path))
	}
}

// bounds says how often and how much.
func (r *renderer) bounds(w *writer, p *model.Policy) {
	for _, use := range p.Requests {
		if r.known(use.Limit) {
			w.line("limit_req", "zone="+limitName(use.Limit), "burst="+number(max(use.Burst, 1)), "nodelay")
		}
	}
	for _, use := range p.Connections {
		if r.known(use.Limit) {
			w.line("limit_conn", limitName(use.Limit), number(min(max(use.Count, 1), 65535)))
		}
	}
	if p.Rate > 0 {
		w.line("limit_rate", number(p.Rate))
	}
	if p.RateAfter > 0 {
		w.line("limit_rate_after", number(p.RateAfter))
	}
	if p.BodySize != nil {
		w.line("client_max_body_size", number(int64(*p.BodySize)))
	}
	if p.BodyBuffer > 0 {
		w.line("client_body_buffer_size", number(int64(p.BodyBuffer)))
	}
}

// known tells whether a counter is written: nginx fails for one that isn't.
func (r *renderer) known(limit *model.Limit) bool {
	return r.counters[limit.Name]
}

// transfer says how a backend is spoken to.
func (r *renderer) transfer(w *writer, p *model.Policy) {
	kind := directive(p.Protocol)
	r.timeouts(w, kind, p.ConnectTimeout, p.SendTimeout, p.ReadTimeout)
	r.next(w, kind, p.NextUpstream, p.NextTries, p.NextTimeout)
	if kind == "grpc" {
		if p.BufferSize > 0 {
			w.line("grpc_buffer_size", number(int64(p.BufferSize)))
		}
		return
	}
	if p.Buffering != nil {
		w.line("proxy_buffering", onOff(*p.Buffering))
	}
	if p.RequestBuffering != nil {
		w.line("proxy_request_buffering", onOff(*p.RequestBuffering))
	}
	if p.BufferSize > 0 || p.Buffers > 0 || p.MaxTempFileSize != nil {
		size, count := int64(p.BufferSize), p.Buffers
		if size == 0 {
			size = r.set.BufferSize
		}
		if count == 0 {
			count = r.set.Buffers
		}
		buffers(w, size, count, p.MaxTempFileSize)
	}
	if p.HTTPVersion == "1.0" || p.HTTPVersion == "1.1" {
		w.line("proxy_http_version", token(p.HTTPVersion))
	}
	for _, one := range []struct {
		name    token
		replace *model.Replace
	}{{"proxy_cookie_domain", p.CookieDomain}, {"proxy_cookie_path", p.CookiePath}, {"proxy_redirect", p.ProxyRedirect}} {
		if one.replace != nil {
			// A dot or a slash at the start keeps nginx from reading an expression.
			w.line(one.name, quote(one.replace.From), quote(one.replace.To))
		}
	}
	if p.CORS != nil {
		for _, name := range append(r.hidden(), corsHeaders...) {
			w.line("proxy_hide_header", name)
		}
	}
}

// allowAll lets a location of the renderer's own answer whom another one let in.
func (w *writer) allowAll() {
	w.line("allow", "all")
	w.line("auth_basic", "off")
}
