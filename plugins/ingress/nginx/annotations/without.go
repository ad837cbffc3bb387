package annotations

// grouped are annotations that are read together with others, in groups.go.
var grouped = set(
	"auth-type", "auth-secret", "auth-secret-type", "auth-realm",
	"auth-url", "auth-method", "auth-signin", "auth-signin-redirect-param", "auth-response-headers",
	"enable-cors", "cors-allow-origin", "cors-allow-methods", "cors-allow-headers", "cors-expose-headers",
	"cors-allow-credentials", "cors-max-age",
	"limit-rps", "limit-rpm", "limit-connections", "limit-burst-multiplier", "limit-whitelist", "limit-allowlist",
	"affinity", "session-cookie-name", "session-cookie-path", "session-cookie-domain", "session-cookie-samesite",
	"session-cookie-expires", "session-cookie-max-age", "session-cookie-secure",
	"canary", "canary-by-header", "canary-by-header-value", "canary-by-header-pattern", "canary-by-cookie", "canary-weight",
	"canary-weight-total",
	"permanent-redirect", "permanent-redirect-code", "temporal-redirect", "temporal-redirect-code",
	"proxy-redirect-from", "proxy-redirect-to",
)

// guarding are annotations that are not supported and say who may come in, or whom a
// backend is believed to be: without them, paths would be open that weren't.
var guarding = map[string]string{
	"auth-tls-secret":                       "client certificates",
	"auth-tls-verify-client":                "client certificates",
	"auth-snippet":                          "snippets for auth-url",
	"modsecurity-snippet":                   "the module is not in the distributions' nginx",
	"enable-modsecurity":                    "the module is not in the distributions' nginx",
	"proxy-ssl-secret":                      "certificates towards backends",
	"proxy-ssl-verify":                      "certificates of backends",
	"global-rate-limit":                     "it needs Lua; use limit-rps",
	"enable-global-auth":                    "there is no global-auth-url; use auth-url",
	"auth-proxy-set-headers":                "headers of auth-url's request from a ConfigMap",
	"enable-owasp-core-rules":               "the module is not in the distributions' nginx",
	"enable-owasp-modsecurity-crs":          "the module is not in the distributions' nginx",
	"auth-tls-match-cn":                     "client certificates",
	"auth-tls-pass-certificate-to-upstream": "client certificates",
	"auth-tls-error-page":                   "client certificates",
	"auth-tls-verify-depth":                 "client certificates",
}

// unsupported are annotations of ingress-nginx that are ignored.
var unsupported = map[string]string{
	"affinity-mode":                            "a client stays on its endpoint as long as that is there, as with persistent, but for those that a new endpoint takes over",
	"affinity-canary-behavior":                 "a canary's rules decide for every request; then each side's cookie does",
	"session-cookie-change-on-failure":         "the cookie stays; another endpoint answers while the first can't",
	"session-cookie-conditional-samesite-none": "it is for browsers of before 2020",
	"load-balance":                             "requests go round; upstream-hash-by keeps them together",
	"upstream-hash-by-subset":                  "upstream-hash-by takes one endpoint",
	"upstream-hash-by-subset-size":             "upstream-hash-by takes one endpoint",
	"auth-cache-key":                           "every request is asked for",
	"auth-cache-duration":                      "every request is asked for",
	"auth-keepalive":                           "connections to auth-url are not kept",
	"auth-keepalive-requests":                  "connections to auth-url are not kept",
	"auth-keepalive-timeout":                   "connections to auth-url are not kept",
	"auth-keepalive-share-vars":                "connections to auth-url are not kept",
	"auth-always-set-cookie":                   "the cookies of auth-url's answer are not passed on",
	"auth-request-redirect":                    "X-Auth-Request-Redirect is the request's own URI",
	"custom-headers":                           "set headers in the backend",
	"enable-opentelemetry":                     "the module is not in the distributions' nginx",
	"opentelemetry-trust-incoming-span":        "the module is not in the distributions' nginx",
	"opentelemetry-operation-name":             "the module is not in the distributions' nginx",
	"enable-opentracing":                       "the module is not in the distributions' nginx",
	"opentracing-trust-incoming-span":          "the module is not in the distributions' nginx",
	"modsecurity-transaction-id":               "the module is not in the distributions' nginx",
	"enable-rewrite-log":                       "rewrites are not logged",
	"mirror-target":                            "requests are not mirrored",
	"mirror-request-body":                      "requests are not mirrored",
	"mirror-host":                              "requests are not mirrored",
	"http2-push-preload":                       "browsers have given HTTP/2 push up",
	"stream-snippet":                           "TCP and UDP are not served",
	"ssl-passthrough":                          "TLS ends here; use a Service of type LoadBalancer",
	"fastcgi-index":                            "the backend protocol FCGI is not supported",
	"fastcgi-params-configmap":                 "the backend protocol FCGI is not supported",
	"proxy-ssl-ciphers":                        "OpenSSL's own are used towards backends",
	"proxy-ssl-protocols":                      "OpenSSL's own are used towards backends",
	"proxy-ssl-verify-depth":                   "certificates of backends are not checked",
	"preserve-trailing-slash":                  "redirects to HTTPS keep the path as it came",
	"secure-backends":                          "it was renamed long ago; use backend-protocol: HTTPS",
	"whitelist-deny-code":                      "who may not come in gets 403",
	"limit-req-status-code":                    "set it for all in the ConfigMap",
	"ssl-stapling":                             "certificates are not stapled",
	"relative-redirects":                       "redirects are absolute",
	"proxy-busy-buffers-size":                  "it follows from proxy-buffer-size",
	"denylist-deny-code":                       "who may not come in gets 403",
}

func set(names ...string) map[string]bool {
	all := make(map[string]bool, len(names))
	for _, name := range names {
		all[name] = true
	}
	return all
}
