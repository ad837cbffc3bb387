package annotations

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// auth reads auth-type, auth-secret, auth-secret-type and auth-realm.
func (p *parser) auth() {
	_, typed := p.given["auth-type"]
	_, secret := p.given["auth-secret"]
	if !typed && !secret {
		return
	}
	var kind string
	auth := BasicAuth{Realm: "Authentication Required"}
	switch {
	case !typed:
		p.deny("auth-secret", errors.New("auth-secret without auth-type: basic"))
		return
	case !guard(p, "auth-type", &kind, func(text string) (string, error) { return value.OneOf(text, "basic") }):
		return
	case !secret:
		p.deny("auth-type", errors.New("auth-type without auth-secret"))
		return
	case !guard(p, "auth-secret", &auth.Secret, secretName):
		return
	}
	guard(p, "auth-secret-type", &auth.Map, func(text string) (bool, error) {
		word, err := value.OneOf(text, "auth-file", "auth-map")
		return word == "auth-map", err
	})
	get(p, "auth-realm", &auth.Realm, func(text string) (string, error) {
		if strings.ContainsAny(text, `"\`) {
			return "", fmt.Errorf("%s holds a quote or a backslash", value.Show(text))
		}
		return value.Text(text)
	})
	p.out.BasicAuth = &auth
}

// secretName reads a secret's name, perhaps after its namespace.
func secretName(text string) (string, error) {
	namespace, name, found := strings.Cut(strings.TrimSpace(text), "/")
	if !found {
		namespace, name = "default", namespace
	}
	for _, part := range []string{namespace, name} {
		if host, err := value.Host(part); err != nil || host != part {
			return "", fmt.Errorf("%s is not a secret's name", value.Show(text))
		}
	}
	return strings.TrimSpace(text), nil
}

// externalAuth reads auth-url and what goes with it.
func (p *parser) externalAuth() {
	if _, given := p.given["auth-url"]; !given {
		if _, given := p.given["auth-signin"]; given {
			p.deny("auth-signin", errors.New("auth-signin without auth-url"))
		}
		return
	}
	auth := model.ExternalAuth{RedirectParam: "rd"}
	if !guard(p, "auth-url", &auth.URL, authURL) {
		return
	}
	guard(p, "auth-method", &auth.Method, value.Method)
	get(p, "auth-signin", &auth.SignIn, func(text string) (string, error) { return value.URL(text, true) })
	get(p, "auth-signin-redirect-param", &auth.RedirectParam, func(text string) (string, error) {
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`).MatchString(text) {
			return "", fmt.Errorf("%s is not a parameter's name", value.Show(text))
		}
		return text, nil
	})
	get(p, "auth-response-headers", &auth.ResponseHeaders, func(text string) ([]string, error) { return value.HeaderNames(text, false) })
	p.out.Policy.Auth = &auth
}

// authURL reads where to ask. A client must not choose whom: the only variable in the host is
// $host. Without it, the host is not the node itself.
func authURL(text string) (string, error) {
	text, err := value.URL(text, false)
	if err != nil {
		return "", err
	}
	value.Template(Authority(text), func(piece string, variable bool) {
		// A request's URI begins with a slash, and so ends the host.
		if variable && piece != "host" && piece != "request_uri" {
			err = fmt.Errorf("%s has the variable $%s in its host, by which a client would choose whom to ask", value.Show(text), piece)
		}
	})
	if err != nil {
		return "", err
	}
	if AsksHost(text) {
		// Which hosts these are, the Ingress's rules and their aliases say; see AskedOf.
		return text, nil
	}
	return text, AskedOf(text, "")
}

// AsksHost tells whether a URL's host depends on the host of the request.
func AsksHost(text string) bool {
	asks := false
	value.Template(Authority(text), func(piece string, variable bool) { asks = asks || variable && piece == "host" })
	return asks
}

// AskedOf says why a URL may not be asked by a request for a host; nil if it may. The host may begin
// with "*.".
func AskedOf(text, host string) error {
	var plain strings.Builder
	value.Template(Authority(text), func(piece string, variable bool) {
		switch {
		case !variable:
			plain.WriteString(piece)
		case piece == "host":
			plain.WriteString(strings.Replace(host, "*", "any", 1))
		}
		// $request_uri begins with a slash, and is no part of the host.
	})
	// Only a host with a port may stand here: a user's name would hide the host behind it.
	parsed, err := url.Parse("//" + plain.String())
	if err != nil || parsed.User != nil || parsed.Hostname() == "" {
		return fmt.Errorf("%s names no host to ask", value.Show(text))
	}
	return value.Outside(parsed.Hostname())
}

// corsHeaders are what ingress-nginx allows unless told otherwise.
const (
	corsMethods = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
	corsHeaders = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
	corsMaxAge  = 1728000 * time.Second
)

// cors reads enable-cors and what goes with it.
func (p *parser) cors() {
	var on bool
	if !get(p, "enable-cors", &on, value.Bool) || !on {
		return
	}
	cors := model.CORS{Origins: []string{"*"}, Methods: corsMethods, Headers: corsHeaders, Credentials: true, MaxAge: corsMaxAge}
	// A wrong list of origins allows none: browsers keep others out, as the list meant to.
	if _, given := p.given["cors-allow-origin"]; given && !get(p, "cors-allow-origin", &cors.Origins, origins) {
		return
	}
	list := func(name string, into *string, read func(string) ([]string, error)) {
		var items []string
		if get(p, name, &items, read) {
			*into = strings.Join(items, ", ")
		}
	}
	names := func(text string) ([]string, error) { return value.HeaderNames(text, true) }
	list("cors-allow-methods", &cors.Methods, value.Methods)
	list("cors-allow-headers", &cors.Headers, names)
	list("cors-expose-headers", &cors.ExposeHeaders, names)
	get(p, "cors-allow-credentials", &cors.Credentials, value.Bool)
	get(p, "cors-max-age", &cors.MaxAge, func(text string) (time.Duration, error) {
		n, err := value.Int(text, 0, 1<<30)
		return seconds(n), err
	})
	p.out.Policy.CORS = &cors
}

var origin = regexp.MustCompile(`^(?:null|[a-z][a-z0-9+.-]*://(?:\*\.)?[A-Za-z0-9_.-]+(?::(?:[0-9]{1,5}|\*))?|` +
	`[a-z][a-z0-9+.-]*://\[[0-9a-fA-F:.]+\](?::[0-9]{1,5})?)$`)

// origins reads origins, whose host may begin with "*.".
func origins(text string) ([]string, error) {
	list := value.List(text)
	for _, item := range list {
		if item == "*" {
			return []string{"*"}, nil
		}
		if len(item) > 300 || !origin.MatchString(item) {
			return nil, fmt.Errorf("%s is not an origin such as https://example.com or https://*.example.com:8443", value.Show(item))
		}
	}
	if len(list) == 0 || len(list) > 100 {
		return nil, fmt.Errorf("%d origins, want 1 to 100", len(list))
	}
	return list, nil
}

// limits reads limit-rps, limit-rpm, limit-connections and what goes with them. A wrong
// limit closes nothing: it says how much, not who.
func (p *parser) limits() {
	limits := &p.out.Limits
	get(p, "limit-rps", &limits.PerSecond, between(0, 1<<20))
	get(p, "limit-rpm", &limits.PerMinute, between(0, 1<<20))
	get(p, "limit-connections", &limits.Connections, between(0, 65535))
	limits.Burst = 5
	get(p, "limit-burst-multiplier", &limits.Burst, between(1, 1000))
	name := "limit-whitelist"
	if _, given := p.given[name]; !given {
		name = "limit-allowlist"
	}
	get(p, name, &limits.Except, func(text string) (string, error) {
		_, err := value.Prefixes(text)
		return text, err
	})
}

// sticky reads affinity and the session-cookie annotations.
func (p *parser) sticky() {
	var kind string
	if !get(p, "affinity", &kind, func(text string) (string, error) { return value.OneOf(text, "cookie") }) {
		return
	}
	cookie := model.Cookie{Name: "INGRESSCOOKIE"}
	get(p, "session-cookie-name", &cookie.Name, value.CookieName)
	get(p, "session-cookie-path", &cookie.Path, value.CookiePath)
	get(p, "session-cookie-domain", &cookie.Domain, func(text string) (string, error) {
		return value.Host(strings.TrimPrefix(strings.TrimSpace(text), "."))
	})
	get(p, "session-cookie-samesite", &cookie.SameSite, func(text string) (string, error) {
		return value.OneOf(text, "None", "Lax", "Strict")
	})
	age := func(name string) {
		get(p, name, &cookie.MaxAge, func(text string) (time.Duration, error) {
			n, err := value.Int(text, 0, 1<<31-1)
			return seconds(n), err
		})
	}
	// nginx can't write a date: Expires becomes Max-Age, which wins in every browser anyway.
	age("session-cookie-expires")
	age("session-cookie-max-age")
	get(p, "session-cookie-secure", &cookie.Secure, value.Bool)
	p.out.Sticky = &cookie
}

// canary reads canary and what goes with it.
func (p *parser) canary() {
	var on bool
	if !get(p, "canary", &on, value.Bool) || !on {
		return
	}
	canary := model.Canary{Total: 100}
	header := get(p, "canary-by-header", &canary.Header, value.HeaderName)
	if get(p, "canary-by-header-value", &canary.Value, value.Text) && !header {
		p.problem("canary-by-header-value", "there is no canary-by-header; the annotation is ignored")
	}
	if canary.Value == "" {
		get(p, "canary-by-header-pattern", &canary.Pattern, func(text string) (string, error) {
			_, err := value.Regexp(text)
			return text, err
		})
	}
	get(p, "canary-by-cookie", &canary.Cookie, value.CookieName)
	get(p, "canary-weight-total", &canary.Total, between(1, 1<<30))
	get(p, "canary-weight", &canary.Weight, between(0, canary.Total))
	p.out.Canary = &canary
}

// redirects reads permanent-redirect, temporal-redirect and their codes; the temporal one wins.
func (p *parser) redirects() {
	url := func(text string) (string, error) { return value.URL(text, true) }
	code := func(text string) (int, error) { return value.Int(text, 300, 308) }
	for _, kind := range []struct {
		name string
		code int
	}{{"temporal-redirect", 302}, {"permanent-redirect", 301}} {
		redirect := model.Redirect{Code: kind.code}
		get(p, kind.name+"-code", &redirect.Code, code)
		if get(p, kind.name, &redirect.URL, url) && p.out.Policy.Redirect == nil {
			p.out.Policy.Redirect = &redirect
		}
	}
	if from, given := p.given["proxy-redirect-from"]; given && from != "default" && from != "off" {
		pair := from + " " + p.given["proxy-redirect-to"]
		p.given["proxy-redirect-from"] = pair
		get(p, "proxy-redirect-from", &p.out.Policy.ProxyRedirect, replace)
	}
}

// Authority is the part of a URL that says which host is asked.
func Authority(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	if at := strings.IndexAny(rest, "/?#"); at >= 0 {
		rest = rest[:at]
	}
	return rest
}
