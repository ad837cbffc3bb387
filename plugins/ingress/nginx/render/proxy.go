package render

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// pair is a header and its value.
type pair struct{ name, value token }

// forwarded are the headers that a backend is sent.
func (r *renderer) forwarded(grpc bool) []pair {
	forwardedFor := token("$remote_addr")
	if r.set.AppendForwardedFor {
		forwardedFor = "$k3m_forwarded_for"
	}
	original, ok := header("http_", r.set.ForwardedForHeader)
	if !ok {
		original = "$http_x_forwarded_for"
	}
	host, scheme, port := token("$http_host"), token("$scheme"), token("$k3m_own_port")
	if r.set.UseForwarded {
		host, scheme, port = "$k3m_host", "$k3m_scheme", "$k3m_port"
	}
	pairs := []pair{
		{"Host", host}, {"X-Request-ID", "$k3m_request_id"}, {"X-Real-IP", "$remote_addr"}, {"X-Forwarded-For", forwardedFor},
		{"X-Forwarded-Host", host}, {"X-Forwarded-Port", port}, {"X-Forwarded-Proto", scheme},
		{"X-Forwarded-Scheme", scheme}, {"X-Scheme", scheme}, {"X-Original-Forwarded-For", original}, {"Proxy", `""`},
	}
	if !grpc {
		pairs = append(pairs, pair{"Upgrade", "$http_upgrade"}, pair{"Connection", "$k3m_connection"})
	}
	return pairs
}

// with replaces or adds a header.
func with(pairs []pair, name, value token) []pair {
	for i := range pairs {
		if strings.EqualFold(string(pairs[i].name), string(name)) {
			pairs[i].value = value
			return pairs
		}
	}
	return append(pairs, pair{name, value})
}

func (w *writer) headers(directive token, pairs []pair) {
	for _, p := range pairs {
		w.line(directive, p.name, p.value)
	}
}

// proxy writes what holds for all backends.
func (r *renderer) proxy(w *writer) {
	set := r.set
	w.headers("proxy_set_header", r.forwarded(false))
	w.headers("grpc_set_header", r.forwarded(true))
	w.line("proxy_http_version", "1.1")
	w.line("proxy_redirect", "off")
	for _, kind := range []token{"proxy", "grpc"} {
		r.timeouts(w, kind, set.ConnectTimeout, set.SendTimeout, set.ReadTimeout)
		r.next(w, kind, set.NextUpstream, &set.NextTries, &set.NextTimeout)
		if set.PassServerHeader {
			w.line(kind+"_pass_header", "Server")
		}
		for _, name := range r.hidden() {
			w.line(kind+"_hide_header", name)
		}
	}
	w.line("grpc_buffer_size", number(set.BufferSize))
	w.line("proxy_buffering", onOff(set.Buffering))
	w.line("proxy_request_buffering", onOff(set.RequestBuffering))
	buffers(w, set.BufferSize, set.Buffers, nil)
}

// hidden are the headers of backends that clients don't see.
func (r *renderer) hidden() []token {
	var names []token
	for _, name := range slices.Compact(slices.Sorted(slices.Values(r.set.HideHeaders))) {
		if headerName.MatchString(name) {
			names = append(names, token(name))
		}
	}
	return names
}

func (r *renderer) timeouts(w *writer, kind token, connect, send, read time.Duration) {
	for _, one := range []struct {
		name token
		time time.Duration
	}{{"_connect_timeout", connect}, {"_send_timeout", send}, {"_read_timeout", read}} {
		if one.time > 0 {
			w.line(kind+one.name, millis(one.time))
		}
	}
}

// next says when another endpoint is asked.
func (r *renderer) next(w *writer, kind token, cases []string, tries *int, limit *time.Duration) {
	if len(cases) > 0 {
		tokens := []token{kind + "_next_upstream"}
		for _, one := range cases {
			tokens = append(tokens, word(one))
		}
		if r.set.RetryUnsafe && !slices.Contains(cases, "off") && !slices.Contains(cases, "non_idempotent") {
			tokens = append(tokens, "non_idempotent")
		}
		w.line(tokens...)
	}
	if tries != nil {
		w.line(kind+"_next_upstream_tries", number(*tries))
	}
	if limit != nil {
		w.line(kind+"_next_upstream_timeout", millis(*limit))
	}
}

// buffers writes sizes that go together: nginx refuses those that don't.
func buffers(w *writer, size int64, count int, temp *model.Size) {
	count = max(count, 2)
	w.line("proxy_buffer_size", number(size))
	w.line("proxy_buffers", number(count), number(size))
	w.line("proxy_busy_buffers_size", number(size*int64(min(2, count-1))))
	if temp != nil {
		limit := int64(*temp)
		if limit > 0 {
			limit = max(limit, 2*size)
		}
		w.line("proxy_max_temp_file_size", number(limit))
	}
}

func unique(list []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		if p = p.Masked(); p.IsValid() {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(all)
}
