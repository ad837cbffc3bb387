// Package settings reads the global values, those of ingress-nginx's ConfigMap under the
// same names. Values are checked; one that is wrong is told and its default stays.
package settings

import (
	"net/netip"
	"time"
)

// Settings are the global values, checked. Sizes are in bytes.
type Settings struct {
	// Processes; 0 workers is one for each processor.
	Workers             int
	WorkerConnections   int
	ShutdownTimeout     time.Duration
	ErrorLevel          string
	ReusePort           bool
	ServiceUpstream     bool
	AllowExternalName   bool
	MultiAccept         bool
	ServerTokens        bool
	IgnoreBadHeaders    bool
	UnderscoresInHeader bool
	PassServerHeader    bool
	HideHeaders         []string

	// The client's side.
	KeepAlive          time.Duration
	KeepAliveRequests  int
	BodyTimeout        time.Duration
	HeaderTimeout      time.Duration
	HeaderBuffer       int64
	LargeHeaders       int
	LargeHeaderSize    int64
	HTTP2              bool
	HTTP2Streams       int
	UseForwarded       bool
	ForwardedForHeader string
	RealIP             bool
	AppendForwardedFor bool
	ProxyProtocol      bool
	TrustedProxies     []netip.Prefix

	// TLS.
	SSLProtocols           []string
	SSLCiphers             string
	SSLPreferServerCiphers bool
	SSLCurve               string
	SSLSessionCache        bool
	SSLSessionCacheSize    int64
	SSLSessionTimeout      time.Duration
	SSLSessionTickets      bool
	SSLBufferSize          int64
	SSLRejectHandshake     bool
	SSLRedirect            bool
	ForceSSLRedirect       bool
	RedirectCode           int
	NoRedirect             []string
	HSTS                   bool
	HSTSMaxAge             time.Duration
	HSTSSubdomains         bool
	HSTSPreload            bool

	// What a location has unless its Ingress says otherwise.
	BodySize         int64
	BodyBuffer       int64
	ConnectTimeout   time.Duration
	SendTimeout      time.Duration
	ReadTimeout      time.Duration
	Buffering        bool
	RequestBuffering bool
	BufferSize       int64
	Buffers          int
	NextUpstream     []string
	NextTries        int
	NextTimeout      time.Duration
	RetryUnsafe      bool
	Allow            []netip.Prefix
	Deny             []netip.Prefix
	Errors           []int
	LimitStatus      int
	LimitConnStatus  int
	Rate, RateAfter  int64

	// The backends' side.
	UpstreamConnections int
	UpstreamTimeout     time.Duration
	UpstreamRequests    int
	UpstreamTime        time.Duration

	Gzip          bool
	GzipLevel     int
	GzipMinLength int64
	GzipTypes     []string

	AccessLog       bool
	LogFormat       string
	LogEscape       string // default, json or none
	SkipLog         []string
	GenerateRequest bool

	// Pieces of configuration, by an operator who allows them.
	MainSnippet, HTTPSnippet, ServerSnippet, LocationSnippet string
}

// Problem is a key whose value was not taken; the default stays.
type Problem struct {
	Key string
	// Message is a sentence with a hint how to mend it.
	Message string
}

// DefaultLogFormat is ingress-nginx's line, with nginx's own names.
const DefaultLogFormat = `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" ` +
	`"$http_user_agent" $request_length $request_time [$proxy_host] $upstream_addr $upstream_response_length ` +
	`$upstream_response_time $upstream_status $req_id`

// defaultCiphers are Mozilla's intermediate ones for TLS 1.2 (ssl-config.mozilla.org, 5.7).
const defaultCiphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:" +
	"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-AES128-GCM-SHA256:" +
	"DHE-RSA-AES256-GCM-SHA384"

// Default are the values without any ConfigMap: ingress-nginx's, but that Services of type
// ExternalName are no backends: nginx runs on the host, and a name that its owner points at
// 127.0.0.1 would open what listens on the node's loopback.
func Default() *Settings {
	return &Settings{
		WorkerConnections: 16384, ShutdownTimeout: 240 * time.Second, ErrorLevel: "notice",
		MultiAccept: true, IgnoreBadHeaders: true,

		KeepAlive: 75 * time.Second, KeepAliveRequests: 1000, BodyTimeout: time.Minute, HeaderTimeout: time.Minute,
		HeaderBuffer: 1 << 10, LargeHeaders: 4, LargeHeaderSize: 8 << 10, HTTP2: true, HTTP2Streams: 128,
		ForwardedForHeader: "X-Forwarded-For",
		TrustedProxies:     []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},

		SSLProtocols: []string{"TLSv1.2", "TLSv1.3"}, SSLCiphers: defaultCiphers, SSLPreferServerCiphers: true, SSLCurve: "auto",
		SSLSessionCache: true, SSLSessionCacheSize: 10 << 20, SSLSessionTimeout: 10 * time.Minute, SSLBufferSize: 4 << 10,
		SSLRedirect: true, RedirectCode: 308, NoRedirect: []string{"/.well-known/acme-challenge"},
		HSTS: true, HSTSMaxAge: 31536000 * time.Second, HSTSSubdomains: true,

		BodySize: 1 << 20, BodyBuffer: 8 << 10, ConnectTimeout: 5 * time.Second, SendTimeout: time.Minute, ReadTimeout: time.Minute,
		RequestBuffering: true, BufferSize: 4 << 10, Buffers: 4, NextUpstream: []string{"error", "timeout"}, NextTries: 3,
		LimitStatus: 503, LimitConnStatus: 503,

		UpstreamConnections: 320, UpstreamTimeout: time.Minute, UpstreamRequests: 10000, UpstreamTime: time.Hour,

		GzipLevel: 1, GzipMinLength: 256, GzipTypes: []string{"application/atom+xml", "application/javascript", "application/json",
			"application/manifest+json", "application/rss+xml", "application/vnd.ms-fontobject", "application/x-font-ttf",
			"application/x-javascript", "application/xhtml+xml", "application/xml", "font/opentype", "image/svg+xml", "image/x-icon",
			"text/css", "text/javascript", "text/plain", "text/x-component"},

		AccessLog: true, LogFormat: DefaultLogFormat, LogEscape: "default", GenerateRequest: true,
	}
}
