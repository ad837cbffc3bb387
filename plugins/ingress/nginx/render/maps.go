package render

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// cookie is the variable that holds a request's cookie; empty without one.
func (r *renderer) cookie(name string) token {
	key := id("cookie", name)
	return r.vars.define("k3m_cookie_"+key, func(w *writer) {
		w.open("map", "$http_cookie", "$k3m_cookie_"+token(key))
		w.line("default", `""`)
		w.line(text(`~(?:^|;\s*)`+regexp.QuoteMeta(name)+`=(?<k3m_v_`+key+`>[^;]+)`), "$k3m_v_"+token(key))
		w.close()
	})
}

// sticky is what a client's requests are shared out by: its cookie, or for the first one
// what its cookie will be.
func (r *renderer) sticky(cookie *model.Cookie) token {
	from := r.cookie(cookie.Name)
	name := "k3m_sticky_" + token(id("cookie", cookie.Name))
	r.mapped(name, from, from, `""`, "$request_id")
	return "$" + name
}

// setCookie is the header that gives a client its cookie; empty for one that has it.
func (r *renderer) setCookie(cookie *model.Cookie) token {
	var attributes []string
	if cookie.Path != "" {
		attributes = append(attributes, "Path="+cookie.Path)
	}
	if cookie.Domain != "" {
		attributes = append(attributes, "Domain="+cookie.Domain)
	}
	if cookie.MaxAge > 0 {
		attributes = append(attributes, "Max-Age="+strconv.FormatInt(int64(cookie.MaxAge.Seconds()), 10))
	}
	attributes = append(attributes, "HttpOnly")
	if cookie.SameSite != "" {
		attributes = append(attributes, "SameSite="+cookie.SameSite)
	}
	secure := token("${k3m_secure}")
	if cookie.Secure || cookie.SameSite == "None" {
		secure = "; Secure"
	}
	all := strings.Join(attributes, "; ")
	name := "k3m_set_cookie_" + token(id(cookie.Name, all, string(secure)))
	r.mapped(name, r.cookie(cookie.Name), `""`, `""`, `"`+strip(quote(cookie.Name))+`=${request_id}; `+strip(quote(all))+secure+`"`)
	return "$" + name
}

// canary is the variable that holds the upstream that a request goes to.
func (r *renderer) canary(loc *model.Location) token {
	c := loc.Canary
	main, other := token(`""`), upstream(c.Backend.Upstream)
	if !loc.Backend.Empty() {
		main = upstream(loc.Backend.Upstream)
	}
	key := id(string(main), string(other), c.Header, c.Value, c.Pattern, c.Cookie, strconv.Itoa(c.Weight), strconv.Itoa(c.Total))
	chosen := r.weighted("k3m_weight_"+token(key), main, other, c.Weight, c.Total)
	if c.Cookie != "" {
		name := "k3m_by_cookie_" + token(key)
		r.mapped(name, r.cookie(c.Cookie), chosen, "always", other, "never", main)
		chosen = "$" + name
	}
	variable, ok := header("http_", c.Header)
	if c.Header == "" || !ok {
		return r.named("k3m_canary_"+token(key), chosen)
	}
	name := "k3m_by_header_" + token(key)
	switch {
	case c.Value != "":
		r.mapped(name, variable, chosen, text(literalRegex(c.Value)), other)
	case c.Pattern != "":
		r.mapped(name, variable, chosen, text("~"+c.Pattern), other)
	default:
		r.mapped(name, variable, chosen, "always", other, "never", main)
	}
	return "$" + name
}

// weighted is what a share of the requests goes to: a variable, or one of the two.
func (r *renderer) weighted(name, main, other token, weight, total int) token {
	switch {
	case weight <= 0 || total <= 0:
		return main
	case weight >= total:
		return other
	}
	// Hundredths of a percent, which is as fine as nginx divides.
	share := min(max(int64(weight)*10000/int64(total), 1), 9999)
	return r.vars.define(string(name), func(w *writer) {
		w.open("split_clients", `"${request_id}"`, "$"+name)
		w.line(number(share/100)+"."+token(strconv.FormatInt(100+share%100, 10)[1:])+"%", other)
		w.line("*", main)
		w.close()
	})
}

// named makes a variable of what may be a constant.
func (r *renderer) named(name, what token) token {
	if strings.HasPrefix(string(what), "$") {
		return what
	}
	r.mapped(name, `""`, what)
	return "$" + name
}

// corsHeaders are the answers about other origins, which the backend's own would double.
var corsHeaders = []token{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Methods",
	"Access-Control-Allow-Headers", "Access-Control-Max-Age", "Access-Control-Expose-Headers"}

// cors answers for other origins, and requests that ask for permission beforehand.
func (r *renderer) cors(w *writer, policy *model.Policy) {
	cors := policy.CORS
	origin := token(`"*"`)
	if len(cors.Origins) != 1 || cors.Origins[0] != "*" {
		origin = r.origins(cors.Origins)
		w.line("add_header", "Vary", "Origin", "always")
	}
	add := func(name token, value string) {
		if value != "" {
			w.line("add_header", name, quote(value), "always")
		}
	}
	w.line("add_header", "Access-Control-Allow-Origin", origin, "always")
	if cors.Credentials {
		w.line("add_header", "Access-Control-Allow-Credentials", `"true"`, "always")
	}
	add("Access-Control-Allow-Methods", cors.Methods)
	add("Access-Control-Allow-Headers", cors.Headers)
	add("Access-Control-Expose-Headers", cors.ExposeHeaders)
	w.line("add_header", "Access-Control-Max-Age", number(int64(cors.MaxAge.Seconds())), "always")
	w.open("if", "($request_method", "=", "OPTIONS)")
	w.line("return", "204")
	w.close()
}

// origins is the variable that holds the request's origin, if it is one of these.
func (r *renderer) origins(list []string) token {
	key := id(append([]string{"origins"}, list...)...)
	return r.vars.define("k3m_origin_"+key, func(w *writer) {
		w.open("map", "$http_origin", "$k3m_origin_"+token(key))
		w.line("default", `""`)
		seen := map[string]bool{}
		for _, origin := range list {
			re := regexp.QuoteMeta(origin)
			// "*." is one label, ":*" any port.
			re = strings.Replace(re, `://\*\.`, `://[A-Za-z0-9_-]+\.`, 1)
			if port, any := strings.CutSuffix(re, `:\*`); any {
				re = port + `:[0-9]+`
			}
			if !seen[re] {
				seen[re] = true
				w.line(text(`~*^`+re+`\z`), "$http_origin")
			}
		}
		w.close()
	})
}
