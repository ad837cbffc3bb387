package render

import (
	"net/netip"
	"slices"
	"strings"
)

// main writes what is not about HTTP.
func (r *renderer) main(w *writer) {
	set, env := r.set, r.env
	w.line("daemon", onOff(!env.Foreground))
	w.line("pid", text(env.RunDir+"/nginx.pid"))
	if set.Workers == 0 {
		w.line("worker_processes", "auto")
	} else {
		w.line("worker_processes", number(set.Workers))
	}
	if env.MaxFiles > 0 {
		w.line("worker_rlimit_nofile", number(int64(min(env.MaxFiles, 1<<30))))
	}
	w.line("worker_shutdown_timeout", millis(set.ShutdownTimeout))
	if env.ErrorLog == "" {
		w.line("error_log", "/dev/null", "emerg")
	} else {
		w.line("error_log", text(env.ErrorLog), word(set.ErrorLevel))
	}
	w.line("pcre_jit", "on")
	w.snippet(set.MainSnippet)
	w.open("events")
	w.line("worker_connections", number(set.WorkerConnections))
	w.line("multi_accept", onOff(set.MultiAccept))
	w.close()
}

// http writes what holds for all servers.
func (r *renderer) http(w *writer) {
	r.paths(w)
	r.sizes(w)
	r.client(w)
	r.ssl(w)
	r.common()
	r.proxy(w)
	r.log(w)
	w.snippet(r.set.HTTPSnippet)
}

// paths moves what nginx writes into the component's own folder.
func (r *renderer) paths(w *writer) {
	dir := r.env.RunDir
	w.line("client_body_temp_path", text(dir+"/body"))
	w.line("proxy_temp_path", text(dir+"/proxy"))
	for _, kind := range []string{"fastcgi", "scgi", "uwsgi"} {
		if !r.env.Nginx.without["http_"+kind+"_module"] {
			w.line(token(kind+"_temp_path"), text(dir+"/"+kind))
		}
	}
}

// sizes writes nginx's tables, big enough for what is served.
func (r *renderer) sizes(w *writer) {
	names, longest := 0, 0
	for _, s := range r.cfg.Servers {
		for _, host := range s.Hosts {
			names++
			longest = max(longest, len(host))
		}
	}
	w.line("server_names_hash_max_size", number(power(1024, 2*names)))
	w.line("server_names_hash_bucket_size", number(power(256, 2*longest+64)))
	w.line("variables_hash_max_size", number(power(4096, 4*len(r.vars))))
	w.line("variables_hash_bucket_size", "256")
	w.line("map_hash_max_size", "4096")
	w.line("map_hash_bucket_size", "256")
	w.line("proxy_headers_hash_max_size", "1024")
	w.line("proxy_headers_hash_bucket_size", "256")
	w.line("types_hash_max_size", "2048")
	w.line("default_type", "text/plain")
}

// power is the smallest power of two that is at least both.
func power(least, want int) int {
	for least < want {
		least *= 2
	}
	return least
}

func (r *renderer) client(w *writer) {
	set := r.set
	w.line("server_tokens", onOff(set.ServerTokens))
	w.line("sendfile", "on")
	w.line("tcp_nopush", "on")
	w.line("tcp_nodelay", "on")
	w.line("reset_timedout_connection", "on")
	w.line("absolute_redirect", "off")
	w.line("port_in_redirect", "off")
	w.line("keepalive_timeout", millis(set.KeepAlive))
	w.line("keepalive_requests", number(set.KeepAliveRequests))
	w.line("client_header_timeout", millis(set.HeaderTimeout))
	w.line("client_body_timeout", millis(set.BodyTimeout))
	w.line("client_header_buffer_size", number(set.HeaderBuffer))
	w.line("large_client_header_buffers", number(set.LargeHeaders), number(max(set.LargeHeaderSize, 1024)))
	w.line("client_max_body_size", number(set.BodySize))
	w.line("client_body_buffer_size", number(set.BodyBuffer))
	w.line("ignore_invalid_headers", onOff(set.IgnoreBadHeaders))
	w.line("underscores_in_headers", onOff(set.UnderscoresInHeader))
	if set.HTTP2 {
		w.line("http2_max_concurrent_streams", number(set.HTTP2Streams))
		if r.http2Directive() {
			w.line("http2", "on")
		}
	}
	r.realIP(w)
	if len(r.env.Resolver) > 0 {
		tokens := []token{"resolver"}
		for _, server := range r.env.Resolver {
			tokens = append(tokens, address(server))
		}
		w.line(append(tokens, "valid=10s")...)
		w.line("resolver_timeout", "5s")
	}
	if set.Gzip {
		w.line("gzip", "on")
		w.line("gzip_comp_level", number(set.GzipLevel))
		w.line("gzip_min_length", number(set.GzipMinLength))
		w.line("gzip_http_version", "1.1")
		w.line("gzip_proxied", "any")
		w.line("gzip_vary", "on")
		tokens := []token{"gzip_types"}
		for _, kind := range slices.Compact(slices.Sorted(slices.Values(set.GzipTypes))) {
			if kind != "text/html" { // always in nginx's own list
				tokens = append(tokens, word(kind))
			}
		}
		if len(tokens) > 1 {
			w.line(tokens...)
		}
	}
	w.line("limit_req_status", number(set.LimitStatus))
	w.line("limit_conn_status", number(set.LimitConnStatus))
	w.line("limit_req_log_level", "warn")
	w.line("limit_conn_log_level", "warn")
	if set.Rate > 0 {
		w.line("limit_rate", number(set.Rate))
		w.line("limit_rate_after", number(set.RateAfter))
	}
	r.addresses(w, set.Allow, set.Deny)
}

// http2Directive tells whether HTTP/2 is a directive, not a word of listen.
func (r *renderer) http2Directive() bool { return r.env.Nginx.AtLeast(1, 25, 1) }

// realIP says whom nginx believes where a client comes from.
func (r *renderer) realIP(w *writer) {
	set := r.set
	switch name, ok := header("", set.ForwardedForHeader); {
	case set.ProxyProtocol:
		w.line("real_ip_header", "proxy_protocol")
	case (set.UseForwarded || set.RealIP) && ok && name != "":
		w.line("real_ip_header", token(set.ForwardedForHeader))
		w.line("real_ip_recursive", "on")
	default:
		return
	}
	for _, trusted := range set.TrustedProxies {
		w.line("set_real_ip_from", prefix(trusted))
	}
}

func (r *renderer) ssl(w *writer) {
	set := r.set
	tokens := []token{"ssl_protocols"}
	for _, protocol := range set.SSLProtocols {
		tokens = append(tokens, word(protocol))
	}
	w.line(tokens...)
	w.line("ssl_ciphers", text(set.SSLCiphers))
	w.line("ssl_prefer_server_ciphers", onOff(set.SSLPreferServerCiphers))
	w.line("ssl_ecdh_curve", text(set.SSLCurve))
	if set.SSLSessionCache {
		w.line("ssl_session_cache", "shared:k3m_ssl:"+number(set.SSLSessionCacheSize))
		w.line("ssl_session_timeout", seconds(set.SSLSessionTimeout))
	}
	w.line("ssl_session_tickets", onOff(set.SSLSessionTickets))
	w.line("ssl_buffer_size", number(set.SSLBufferSize))
}

func (r *renderer) log(w *writer) {
	set := r.set
	if !set.AccessLog || r.env.AccessLog == "" {
		w.line("access_log", "off")
		return
	}
	escape := token("default")
	if set.LogEscape == "json" || set.LogEscape == "none" {
		escape = token(set.LogEscape)
	}
	w.line("log_format", "k3m", "escape="+escape, logLine(set.LogFormat))
	tokens := []token{"access_log", text(r.env.AccessLog), "k3m", "buffer=32k", "flush=1s"}
	if len(set.SkipLog) > 0 {
		tokens = append(tokens, "if="+r.vars.define("k3m_log", func(w *writer) {
			w.open("map", "$uri", "$k3m_log")
			w.line("default", "1")
			for _, path := range slices.Compact(slices.Sorted(slices.Values(set.SkipLog))) {
				w.line(text(literalRegex(path)), `"0"`)
			}
			w.close()
		}))
	}
	w.line(tokens...)
}

// addresses says who may come in.
func (r *renderer) addresses(w *writer, allow, deny []netip.Prefix) {
	for _, p := range deny {
		w.line("deny", prefix(p))
	}
	for _, p := range allow {
		w.line("allow", prefix(p))
	}
	if len(allow) > 0 {
		w.line("deny", "all")
	}
}

// status answers the controller.
func (r *renderer) status(w *writer) {
	if r.env.Status == "" {
		return
	}
	w.open("server")
	if strings.HasPrefix(r.env.Status, "/") {
		w.line("listen", text("unix:"+r.env.Status))
	} else {
		w.line("listen", text(r.env.Status))
	}
	w.line("access_log", "off")
	w.line("allow", "all")
	w.open("location", "=", "/status")
	w.line("stub_status")
	w.close()
	w.open("location", "=", "/healthz")
	w.line("return", "200", `"ok\n"`)
	w.close()
	w.open("location", "=", "/generation")
	w.line("return", "200", quote(r.env.Generation))
	w.close()
	w.open("location", "/")
	w.line("return", "404")
	w.close()
	w.close()
}
