package render

import (
	"strconv"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// common defines the variables that all servers use.
func (r *renderer) common() {
	r.vars.define("k3m_dollar", func(w *writer) {
		w.open("geo", "$k3m_dollar")
		w.line("default", `"$"`)
		w.close()
	})
	r.mapped("k3m_connection", "$http_upgrade", "upgrade", `""`, `""`)
	scheme, host, port := token("$scheme"), token("$http_host"), token("$k3m_scheme")
	if r.set.UseForwarded {
		r.mapped("k3m_scheme", "$http_x_forwarded_proto", scheme, "http", "http", "https", "https")
		r.mapped("k3m_host", "$http_x_forwarded_host", "$http_x_forwarded_host", `""`, host)
		r.mapped("k3m_port", "$http_x_forwarded_port", "$k3m_own_port", `"~^[0-9]{1,5}\z"`, "$http_x_forwarded_port")
	} else {
		r.mapped("k3m_scheme", `""`, scheme)
		r.mapped("k3m_host", `""`, host)
	}
	r.mapped("k3m_own_port", port, number(r.env.HTTPPort), "https", number(r.env.HTTPSPort))
	r.mapped("k3m_to_https", "$k3m_scheme", "1", "https", `""`)
	r.mapped("k3m_port_suffix", "$k3m_scheme", suffix(r.env.HTTPPort, 80), "https", suffix(r.env.HTTPSPort, 443))
	r.mapped("k3m_secure", "$k3m_scheme", `""`, "https", `"; Secure"`)
	if r.set.GenerateRequest {
		r.mapped("k3m_request_id", "$http_x_request_id", "$http_x_request_id", `""`, "$request_id")
	} else {
		r.mapped("k3m_request_id", `""`, "$http_x_request_id")
	}
	if r.set.HSTS {
		text := "max-age=" + strconv.FormatInt(int64(r.set.HSTSMaxAge.Seconds()), 10)
		if r.set.HSTSSubdomains {
			text += "; includeSubDomains"
		}
		if r.set.HSTSPreload {
			text += "; preload"
		}
		r.mapped("k3m_hsts", "$k3m_scheme", `""`, "https", quote(text))
	}
	if r.set.AppendForwardedFor {
		r.mapped("k3m_forwarded_for", "$http_x_forwarded_for", `"${http_x_forwarded_for}, ${realip_remote_addr}"`, `""`, "$realip_remote_addr")
	}
	r.escaped()
}

// mapped defines a map of key-value pairs.
func (r *renderer) mapped(name token, from, standard token, pairs ...token) {
	r.vars.define(string(name), func(w *writer) {
		w.open("map", from, "$"+name)
		w.line("default", standard)
		for i := 0; i+1 < len(pairs); i += 2 {
			w.line(pairs[i], pairs[i+1])
		}
		w.close()
	})
}

func suffix(port, standard uint16) token {
	if port == standard {
		return `""`
	}
	return token(`":` + strconv.Itoa(int(port)) + `"`)
}

// maxEscapes bounds how many ampersands of a request's query are escaped.
const maxEscapes = 16

// escaped defines a request's URI as the value of a parameter of another. nginx has no
// function to escape; but a request's URI is escaped already, and lacks only that of
// the ampersands, which would begin a parameter of their own. One map takes one of them.
func (r *renderer) escaped() {
	from := token("$request_uri")
	for n := range maxEscapes {
		name := token("k3m_escaped_uri")
		if n < maxEscapes-1 {
			name = "k3m_escaped_" + number(n)
		}
		before, after := "k3m_b"+number(n), "k3m_a"+number(n)
		r.mapped(name, from, from, `"~^(?<`+before+`>[^&]*)&(?<`+after+`>.*)\z"`, `"$`+before+`%26$`+after+`"`)
		from = "$" + name
	}
}

// limits writes the counters.
func (r *renderer) limits(w *writer) {
	if len(r.cfg.Limits) == 0 {
		return
	}
	// 10 MiB hold the states of 80,000 clients; with many counters each has less, so that all
	// of them stay within half a gigabyte.
	size := number(max(256<<10, min(5<<20, (512<<20)/len(r.cfg.Limits))&^(4<<10-1)))
	for _, limit := range r.cfg.Limits {
		key := token("$binary_remote_addr")
		if len(limit.Except) > 0 {
			key = r.counted(limit)
		}
		zone := "zone=" + limitName(limit) + ":" + size
		switch {
		case limit.PerSecond > 0:
			w.line("limit_req_zone", key, zone, "rate="+number(limit.PerSecond)+"r/s")
		case limit.PerMinute > 0:
			w.line("limit_req_zone", key, zone, "rate="+number(limit.PerMinute)+"r/m")
		default:
			w.line("limit_conn_zone", key, zone)
		}
	}
}

func limitName(limit *model.Limit) token { return "k3m_" + token(id("limit", limit.Name)) }

// counted is the client's address where it is counted, and empty where it is not.
func (r *renderer) counted(limit *model.Limit) token {
	var all string
	for _, p := range limit.Except {
		all += string(prefix(p)) + ","
	}
	name := token("k3m_counted_" + id(all))
	free := r.vars.define("k3m_free_"+id(all), func(w *writer) {
		w.open("geo", "$k3m_free_"+token(id(all)))
		w.line("default", "0")
		for _, p := range unique(limit.Except) {
			w.line(prefix(p), "1")
		}
		w.close()
	})
	r.mapped(name, free, "$binary_remote_addr", "1", `""`)
	return "$" + name
}

// upstreams writes the groups of endpoints.
func (r *renderer) upstreams(w *writer) {
	keep := r.keep()
	for _, up := range r.cfg.Upstreams {
		if len(up.Endpoints) == 0 {
			continue
		}
		w.open("upstream", upstream(up.Name))
		switch {
		case up.Sticky != nil:
			w.line("hash", r.sticky(up.Sticky), "consistent")
		case up.HashBy != "":
			w.line("hash", hashBy(up.HashBy), "consistent")
		}
		for _, endpoint := range up.Endpoints {
			// The cluster says which endpoints are there. What nginx thinks of them would take
			// all of them away when one request after another is slow.
			w.line("server", address(endpoint), "max_fails=0")
		}
		if keep > 0 {
			w.line("keepalive", number(keep))
			w.line("keepalive_requests", number(r.set.UpstreamRequests))
			w.line("keepalive_timeout", millis(r.set.UpstreamTimeout))
			if r.env.Nginx.AtLeast(1, 19, 10) {
				w.line("keepalive_time", millis(r.set.UpstreamTime))
			}
		}
		w.close()
	}
}

// maxKept bounds how many idle connections all upstreams together may keep in a worker:
// nginx reserves some 200 bytes for each of them.
const maxKept = 64 << 10

// keep is how many idle connections an upstream keeps in each worker.
func (r *renderer) keep() int {
	n := r.set.UpstreamConnections
	if len(r.cfg.Upstreams) > 0 && n > 0 {
		n = min(n, max(4, maxKept/len(r.cfg.Upstreams)))
	}
	return n
}

// hashBy is the variable that keeps requests together.
func hashBy(name string) token {
	if name == "binary_remote_addr" || name == "uri" {
		return "$" + token(name)
	}
	return template("$" + name)
}
