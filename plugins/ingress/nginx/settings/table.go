package settings

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// keys are the ConfigMap's keys.
var keys = map[string]reader{
	"worker-processes":              workers,
	"max-worker-connections":        number(func(s *Settings) *int { return &s.WorkerConnections }, 64, 1<<20),
	"worker-shutdown-timeout":       duration(func(s *Settings) *time.Duration { return &s.ShutdownTimeout }),
	"error-log-level":               word(func(s *Settings) *string { return &s.ErrorLevel }, "debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"),
	"reuse-port":                    boolean(func(s *Settings) *bool { return &s.ReusePort }),
	"enable-multi-accept":           boolean(func(s *Settings) *bool { return &s.MultiAccept }),
	"service-upstream":              boolean(func(s *Settings) *bool { return &s.ServiceUpstream }),
	"disable-svc-external-name":     func(s *Settings, text string) error { return invert(&s.AllowExternalName, text) },
	"server-tokens":                 boolean(func(s *Settings) *bool { return &s.ServerTokens }),
	"ignore-invalid-headers":        boolean(func(s *Settings) *bool { return &s.IgnoreBadHeaders }),
	"enable-underscores-in-headers": boolean(func(s *Settings) *bool { return &s.UnderscoresInHeader }),
	"allow-backend-server-header":   boolean(func(s *Settings) *bool { return &s.PassServerHeader }),
	"hide-headers":                  words(func(s *Settings) *[]string { return &s.HideHeaders }, header, "a header's name"),

	"keep-alive":                   duration(func(s *Settings) *time.Duration { return &s.KeepAlive }),
	"keep-alive-requests":          number(func(s *Settings) *int { return &s.KeepAliveRequests }, 1, 1<<30),
	"client-body-timeout":          duration(func(s *Settings) *time.Duration { return &s.BodyTimeout }),
	"client-header-timeout":        duration(func(s *Settings) *time.Duration { return &s.HeaderTimeout }),
	"client-header-buffer-size":    memory(func(s *Settings) *int64 { return &s.HeaderBuffer }, 1<<20),
	"large-client-header-buffers":  largeHeaders,
	"use-http2":                    boolean(func(s *Settings) *bool { return &s.HTTP2 }),
	"http2-max-concurrent-streams": number(func(s *Settings) *int { return &s.HTTP2Streams }, 1, 10000),
	"use-forwarded-headers":        boolean(func(s *Settings) *bool { return &s.UseForwarded }),
	"forwarded-for-header":         reading(func(s *Settings) *string { return &s.ForwardedForHeader }, value.HeaderName),
	"enable-real-ip":               boolean(func(s *Settings) *bool { return &s.RealIP }),
	"compute-full-forwarded-for":   boolean(func(s *Settings) *bool { return &s.AppendForwardedFor }),
	"use-proxy-protocol":           boolean(func(s *Settings) *bool { return &s.ProxyProtocol }),
	"proxy-real-ip-cidr":           prefixes(func(s *Settings) *[]netip.Prefix { return &s.TrustedProxies }),

	"ssl-protocols":             words(func(s *Settings) *[]string { return &s.SSLProtocols }, protocol, "one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"),
	"ssl-ciphers":               reading(func(s *Settings) *string { return &s.SSLCiphers }, Ciphers),
	"ssl-prefer-server-ciphers": boolean(func(s *Settings) *bool { return &s.SSLPreferServerCiphers }),
	"ssl-ecdh-curve":            reading(func(s *Settings) *string { return &s.SSLCurve }, curves),
	"ssl-session-cache":         boolean(func(s *Settings) *bool { return &s.SSLSessionCache }),
	"ssl-session-cache-size":    sessionCache,
	"ssl-session-timeout":       duration(func(s *Settings) *time.Duration { return &s.SSLSessionTimeout }),
	"ssl-session-tickets":       boolean(func(s *Settings) *bool { return &s.SSLSessionTickets }),
	"ssl-buffer-size":           memory(func(s *Settings) *int64 { return &s.SSLBufferSize }, 16<<10),
	"ssl-reject-handshake":      boolean(func(s *Settings) *bool { return &s.SSLRejectHandshake }),
	"ssl-redirect":              boolean(func(s *Settings) *bool { return &s.SSLRedirect }),
	"force-ssl-redirect":        boolean(func(s *Settings) *bool { return &s.ForceSSLRedirect }),
	"http-redirect-code":        redirectCode,
	"no-tls-redirect-locations": noRedirect,
	"hsts":                      boolean(func(s *Settings) *bool { return &s.HSTS }),
	"hsts-max-age":              duration(func(s *Settings) *time.Duration { return &s.HSTSMaxAge }),
	"hsts-include-subdomains":   boolean(func(s *Settings) *bool { return &s.HSTSSubdomains }),
	"hsts-preload":              boolean(func(s *Settings) *bool { return &s.HSTSPreload }),

	"proxy-body-size":             size(func(s *Settings) *int64 { return &s.BodySize }),
	"client-body-buffer-size":     memory(func(s *Settings) *int64 { return &s.BodyBuffer }, 64<<20),
	"proxy-connect-timeout":       duration(func(s *Settings) *time.Duration { return &s.ConnectTimeout }),
	"proxy-send-timeout":          duration(func(s *Settings) *time.Duration { return &s.SendTimeout }),
	"proxy-read-timeout":          duration(func(s *Settings) *time.Duration { return &s.ReadTimeout }),
	"proxy-buffering":             boolean(func(s *Settings) *bool { return &s.Buffering }),
	"proxy-request-buffering":     boolean(func(s *Settings) *bool { return &s.RequestBuffering }),
	"proxy-buffer-size":           memory(func(s *Settings) *int64 { return &s.BufferSize }, 1<<20),
	"proxy-buffers-number":        number(func(s *Settings) *int { return &s.Buffers }, 2, 1024),
	"proxy-next-upstream":         reading(func(s *Settings) *[]string { return &s.NextUpstream }, NextUpstream),
	"proxy-next-upstream-tries":   number(func(s *Settings) *int { return &s.NextTries }, 0, 100),
	"proxy-next-upstream-timeout": duration(func(s *Settings) *time.Duration { return &s.NextTimeout }),
	"retry-non-idempotent":        boolean(func(s *Settings) *bool { return &s.RetryUnsafe }),
	"whitelist-source-range":      prefixes(func(s *Settings) *[]netip.Prefix { return &s.Allow }),
	"denylist-source-range":       prefixes(func(s *Settings) *[]netip.Prefix { return &s.Deny }),
	"custom-http-errors":          reading(func(s *Settings) *[]int { return &s.Errors }, ErrorCodes),
	"limit-req-status-code":       number(func(s *Settings) *int { return &s.LimitStatus }, 400, 599),
	"limit-conn-status-code":      number(func(s *Settings) *int { return &s.LimitConnStatus }, 400, 599),
	"limit-rate":                  size(func(s *Settings) *int64 { return &s.Rate }),
	"limit-rate-after":            size(func(s *Settings) *int64 { return &s.RateAfter }),

	"upstream-keepalive-connections": number(func(s *Settings) *int { return &s.UpstreamConnections }, 0, 100000),
	"upstream-keepalive-timeout":     duration(func(s *Settings) *time.Duration { return &s.UpstreamTimeout }),
	"upstream-keepalive-requests":    number(func(s *Settings) *int { return &s.UpstreamRequests }, 1, 1<<30),
	"upstream-keepalive-time":        duration(func(s *Settings) *time.Duration { return &s.UpstreamTime }),

	"use-gzip":        boolean(func(s *Settings) *bool { return &s.Gzip }),
	"gzip-level":      number(func(s *Settings) *int { return &s.GzipLevel }, 1, 9),
	"gzip-min-length": size(func(s *Settings) *int64 { return &s.GzipMinLength }),
	"gzip-types":      words(func(s *Settings) *[]string { return &s.GzipTypes }, mimeType, "a MIME type"),

	"disable-access-log":     func(s *Settings, text string) error { return invert(&s.AccessLog, text) },
	"log-format-upstream":    logFormat,
	"log-format-escape-json": escapeAs("json"),
	"log-format-escape-none": escapeAs("none"),
	"skip-access-log-urls":   words(func(s *Settings) *[]string { return &s.SkipLog }, urlPath, "a path"),
	"generate-request-id":    boolean(func(s *Settings) *bool { return &s.GenerateRequest }),
}

// ErrorCodes reads the codes that a backend of its own answers for.
func ErrorCodes(text string) ([]int, error) { return value.Codes(text, 400, 599) }

func invert(field *bool, text string) error {
	v, err := value.Bool(text)
	if err == nil {
		*field = !v
	}
	return err
}

func escapeAs(mode string) reader {
	return func(s *Settings, text string) error {
		on, err := value.Bool(text)
		if err == nil && on {
			s.LogEscape = mode
		}
		return err
	}
}

// redirectCode reads the code that sends clients to HTTPS.
func redirectCode(s *Settings, text string) error {
	code, err := value.OneOf(text, "301", "302", "307", "308")
	if err == nil {
		s.RedirectCode, err = value.Int(code, 301, 308)
	}
	return err
}

// noRedirect reads the paths that stay on HTTP; none is allowed.
func noRedirect(s *Settings, text string) error {
	if len(value.List(text)) == 0 {
		s.NoRedirect = nil
		return nil
	}
	return words(func(s *Settings) *[]string { return &s.NoRedirect }, urlPath, "a path")(s, text)
}

// sessionCache reads a size that nginx takes: no less than eight pages.
func sessionCache(s *Settings, text string) error {
	n, err := value.MemorySize(text, 1<<30)
	if err == nil && n < 1<<20 {
		err = fmt.Errorf("%s is smaller than 1m", value.Show(text))
	}
	if err == nil {
		s.SSLSessionCacheSize = n
	}
	return err
}
