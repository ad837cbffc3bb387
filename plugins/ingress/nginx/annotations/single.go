package annotations

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// annotation reads one annotation that stands for itself.
type annotation struct {
	take func(*Annotations, string) error
	// guards says that a wrong value closes the paths.
	guards bool
}

func taking[T any](field func(*Annotations) *T, read func(string) (T, error)) annotation {
	return annotation{take: func(a *Annotations, text string) error {
		v, err := read(text)
		if err == nil {
			*field(a) = v
		}
		return err
	}}
}

func guarded[T any](field func(*Annotations) *T, read func(string) (T, error)) annotation {
	made := taking(field, read)
	made.guards = true
	return made
}

func memory(limit int64) func(string) (model.Size, error) {
	return func(text string) (model.Size, error) {
		n, err := value.MemorySize(text, limit)
		return model.Size(n), err
	}
}

func size(text string) (model.Size, error) {
	n, err := value.Size(text)
	return model.Size(n), err
}

// positive reads a duration that is not 0.
func positive(text string) (time.Duration, error) {
	d, err := value.Duration(text)
	if err == nil && d == 0 {
		err = errors.New("0 is no time to wait")
	}
	return d, err
}

func between(low, high int) func(string) (int, error) {
	return func(text string) (int, error) { return value.Int(text, low, high) }
}

// single are the annotations that stand for themselves.
var single = map[string]annotation{
	"use-regex":                 taking(func(a *Annotations) *bool { return &a.UseRegex }, value.Bool),
	"rewrite-target":            taking(func(a *Annotations) *string { return &a.Policy.Rewrite }, rewriteTarget),
	"app-root":                  taking(func(a *Annotations) *string { return &a.AppRoot }, appRoot),
	"ssl-redirect":              taking(func(a *Annotations) **bool { return &a.SSLRedirect }, optional(value.Bool)),
	"force-ssl-redirect":        taking(func(a *Annotations) **bool { return &a.ForceRedirect }, optional(value.Bool)),
	"backend-protocol":          taking(func(a *Annotations) *model.Protocol { return &a.Policy.Protocol }, protocol),
	"server-alias":              taking(func(a *Annotations) *[]string { return &a.Aliases }, aliases),
	"from-to-www-redirect":      taking(func(a *Annotations) *bool { return &a.FromToWWW }, value.Bool),
	"service-upstream":          taking(func(a *Annotations) **bool { return &a.ServiceUp }, optional(value.Bool)),
	"upstream-hash-by":          taking(func(a *Annotations) *string { return &a.HashBy }, hashBy),
	"upstream-vhost":            taking(func(a *Annotations) *string { return &a.Policy.UpstreamHost }, upstreamHost),
	"proxy-ssl-server-name":     taking(func(a *Annotations) *bool { return &a.Policy.SendName }, value.Bool),
	"proxy-ssl-name":            taking(func(a *Annotations) *string { return &a.Policy.BackendName }, value.Host),
	"x-forwarded-prefix":        taking(func(a *Annotations) *string { return &a.Policy.ForwardedPrefix }, value.CookiePath),
	"connection-proxy-header":   taking(func(a *Annotations) *string { return &a.Policy.ConnectionHeader }, connection),
	"ssl-ciphers":               taking(func(a *Annotations) *string { return &a.Ciphers }, settings.Ciphers),
	"ssl-prefer-server-ciphers": taking(func(a *Annotations) **bool { return &a.PreferServer }, optional(value.Bool)),
	"default-backend":           taking(func(a *Annotations) *string { return &a.DefaultBackend }, serviceName),
	"custom-http-errors":        taking(func(a *Annotations) *[]int { return &a.Policy.Errors }, settings.ErrorCodes),
	"enable-access-log": {take: func(a *Annotations, text string) error {
		on, err := value.Bool(text)
		a.Policy.NoAccessLog = err == nil && !on
		return err
	}},

	"whitelist-source-range": guarded(func(a *Annotations) *[]netip.Prefix { return &a.Policy.Allow }, value.Prefixes),
	"allowlist-source-range": guarded(func(a *Annotations) *[]netip.Prefix { return &a.Policy.Allow }, value.Prefixes),
	"denylist-source-range":  guarded(func(a *Annotations) *[]netip.Prefix { return &a.Policy.Deny }, value.Prefixes),
	"satisfy":                guarded(func(a *Annotations) *bool { return &a.Policy.SatisfyAny }, satisfy),

	"proxy-body-size":             taking(func(a *Annotations) **model.Size { return &a.Policy.BodySize }, optional(size)),
	"client-body-buffer-size":     taking(func(a *Annotations) *model.Size { return &a.Policy.BodyBuffer }, memory(64<<20)),
	"proxy-connect-timeout":       taking(func(a *Annotations) *time.Duration { return &a.Policy.ConnectTimeout }, positive),
	"proxy-send-timeout":          taking(func(a *Annotations) *time.Duration { return &a.Policy.SendTimeout }, positive),
	"proxy-read-timeout":          taking(func(a *Annotations) *time.Duration { return &a.Policy.ReadTimeout }, positive),
	"proxy-buffering":             taking(func(a *Annotations) **bool { return &a.Policy.Buffering }, optional(value.Bool)),
	"proxy-request-buffering":     taking(func(a *Annotations) **bool { return &a.Policy.RequestBuffering }, optional(value.Bool)),
	"proxy-buffer-size":           taking(func(a *Annotations) *model.Size { return &a.Policy.BufferSize }, memory(1<<20)),
	"proxy-buffers-number":        taking(func(a *Annotations) *int { return &a.Policy.Buffers }, between(2, 1024)),
	"proxy-max-temp-file-size":    taking(func(a *Annotations) **model.Size { return &a.Policy.MaxTempFileSize }, optional(size)),
	"proxy-http-version":          taking(func(a *Annotations) *string { return &a.Policy.HTTPVersion }, httpVersion),
	"proxy-next-upstream":         taking(func(a *Annotations) *[]string { return &a.Policy.NextUpstream }, settings.NextUpstream),
	"proxy-next-upstream-tries":   taking(func(a *Annotations) **int { return &a.Policy.NextTries }, optional(between(0, 100))),
	"proxy-next-upstream-timeout": taking(func(a *Annotations) **time.Duration { return &a.Policy.NextTimeout }, optional(value.Duration)),
	"proxy-cookie-domain":         taking(func(a *Annotations) **model.Replace { return &a.Policy.CookieDomain }, replace),
	"proxy-cookie-path":           taking(func(a *Annotations) **model.Replace { return &a.Policy.CookiePath }, replace),
	"limit-rate":                  taking(func(a *Annotations) *int64 { return &a.Policy.Rate }, kilobytes),
	"limit-rate-after":            taking(func(a *Annotations) *int64 { return &a.Policy.RateAfter }, kilobytes),
}

// rewriteTarget reads a path with $1 to $9, and no other variable.
func rewriteTarget(text string) (string, error) {
	text, err := value.Text(text)
	switch {
	case err != nil:
		return "", err
	case !strings.HasPrefix(text, "/"):
		return "", fmt.Errorf("%s does not begin with /", value.Show(text))
	}
	for at := 0; at < len(text); at++ {
		if text[at] == '$' && (at+1 == len(text) || text[at+1] < '1' || text[at+1] > '9') {
			return "", fmt.Errorf("%s holds a $ that is not one of $1 to $9", value.Show(text))
		}
		if text[at] == ' ' {
			return "", fmt.Errorf("%s holds a space", value.Show(text))
		}
	}
	return text, nil
}

// appRoot reads a path, perhaps with a query.
func appRoot(text string) (string, error) {
	text, err := value.URL(text, true)
	if err == nil && !strings.HasPrefix(text, "/") {
		err = fmt.Errorf("%s does not begin with /", value.Show(text))
	}
	return text, err
}

func protocol(text string) (model.Protocol, error) {
	word, err := value.OneOf(text, string(model.HTTP), string(model.HTTPS), string(model.GRPC), string(model.GRPCS), "AUTO_HTTP")
	if word == "AUTO_HTTP" {
		return model.HTTP, nil
	}
	return model.Protocol(word), err
}

func aliases(text string) ([]string, error) {
	var hosts []string
	for _, item := range value.List(text) {
		host, err := value.Host(item)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	if len(hosts) == 0 || len(hosts) > 200 {
		return nil, fmt.Errorf("%d hosts, want 1 to 200", len(hosts))
	}
	return hosts, nil
}

// hashBy reads what keeps requests together: one variable.
func hashBy(text string) (string, error) {
	text = strings.TrimSpace(text)
	name := strings.Trim(strings.TrimPrefix(text, "$"), "{}")
	if !strings.HasPrefix(text, "$") || name != "binary_remote_addr" && name != "uri" && !value.AllowedVariable(name) {
		return "", fmt.Errorf("%s is not one variable such as $request_uri, $remote_addr or $http_x_user", value.Show(text))
	}
	return name, nil
}

// upstreamHost reads a host, perhaps with a port.
func upstreamHost(text string) (string, error) {
	name, port, found := strings.Cut(strings.TrimSpace(text), ":")
	if found {
		if _, err := value.Int(port, 1, 65535); err != nil {
			return "", err
		}
	}
	if _, err := value.Host(name); err != nil || strings.HasPrefix(name, "*") {
		return "", fmt.Errorf("%s is not a host", value.Show(text))
	}
	return strings.TrimSpace(text), nil
}

func connection(text string) (string, error) {
	return value.OneOf(text, "close", "keep-alive", "Upgrade")
}

func serviceName(text string) (string, error) {
	name, err := value.Host(text)
	if err != nil || strings.ContainsAny(name, ".*") {
		return "", fmt.Errorf("%s is not the name of a Service of the Ingress's namespace", value.Show(text))
	}
	return name, nil
}

func satisfy(text string) (bool, error) {
	word, err := value.OneOf(text, "any", "all")
	return word == "any", err
}

func httpVersion(text string) (string, error) { return value.OneOf(text, "1.0", "1.1") }

// replace reads "from to", or "off".
func replace(text string) (*model.Replace, error) {
	fields := strings.Fields(text)
	switch {
	case len(fields) == 1 && fields[0] == "off":
		return nil, nil
	case len(fields) != 2:
		return nil, fmt.Errorf("%s is not two words (from, to), nor off", value.Show(text))
	}
	for _, field := range fields {
		if _, err := value.Text(field); err != nil {
			return nil, err
		}
		if strings.HasPrefix(field, "~") || strings.Contains(field, "$") {
			return nil, fmt.Errorf("%s is an expression or holds a variable", value.Show(field))
		}
	}
	return &model.Replace{From: fields[0], To: fields[1]}, nil
}

// kilobytes reads a number of kilobytes, as limit-rate counts.
func kilobytes(text string) (int64, error) {
	n, err := value.Int(text, 0, 1<<30)
	return int64(n) << 10, err
}
