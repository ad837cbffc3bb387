package model

import (
	"net/netip"
	"time"
)

// Policy is how requests of one Ingress are treated. The zero value of a field means the
// global default.
type Policy struct {
	Protocol Protocol
	// Rewrite is the new path, with $1 to $9 for what the path's groups took; empty for none.
	Rewrite string
	// Redirect ends the request there; nil for none.
	Redirect *Redirect
	// UpstreamHost is the Host header that the backend sees; empty for the client's.
	UpstreamHost string
	// SendName tells an HTTPS or GRPCS backend which host is meant (SNI): BackendName, or the
	// upstream's.
	SendName    bool
	BackendName string
	// ForwardedPrefix is sent as X-Forwarded-Prefix; empty for none.
	ForwardedPrefix string
	// ConnectionHeader replaces the Connection header; empty for the usual one.
	ConnectionHeader string

	Allow []netip.Prefix // nobody else, when not empty
	Deny  []netip.Prefix
	// SatisfyAny lets in who passes either the addresses or the authentication.
	SatisfyAny bool
	BasicAuth  *BasicAuth
	Auth       *ExternalAuth
	CORS       *CORS

	Requests    []LimitUse
	Connections []LimitUse
	// Rate and RateAfter bound a response's speed, in bytes a second, and from which byte on.
	Rate, RateAfter int64

	BodySize         *Size // 0 is without bound
	BodyBuffer       Size
	ConnectTimeout   time.Duration
	SendTimeout      time.Duration
	ReadTimeout      time.Duration
	Buffering        *bool
	RequestBuffering *bool
	BufferSize       Size
	Buffers          int
	MaxTempFileSize  *Size
	HTTPVersion      string // "1.0" or "1.1"
	NextUpstream     []string
	NextTries        *int
	NextTimeout      *time.Duration
	CookieDomain     *Replace
	CookiePath       *Replace
	ProxyRedirect    *Replace

	// Errors are answered by ErrorBackend.
	Errors       []int
	ErrorBackend Backend
	NoAccessLog  bool

	// Snippet is an operator-approved piece of configuration; see translate.Options.
	Snippet string
}

// Size is a number of bytes.
type Size int64

// Redirect is an answer instead of a backend. URL may hold the variables that
// annotations may use.
type Redirect struct {
	URL  string
	Code int
}

// Replace rewrites what a backend's answer says.
type Replace struct{ From, To string }

// BasicAuth asks for a name and a password.
type BasicAuth struct {
	Realm string
	Users *UserFile
}

// ExternalAuth asks another server. URL and SignIn may hold the variables that annotations
// may use.
type ExternalAuth struct {
	URL    string
	Method string // empty for GET
	SignIn string // where a client is sent to that may not pass; empty for 401
	// RedirectParam names the parameter of SignIn that says where the client came from.
	RedirectParam string
	// ResponseHeaders of the other server's answer go to the backend.
	ResponseHeaders []string
}

// CORS answers for other origins.
type CORS struct {
	// Origins are "*", or origins whose host may begin with "*.".
	Origins       []string
	Methods       string
	Headers       string
	ExposeHeaders string
	Credentials   bool
	MaxAge        time.Duration
}

// LimitUse is a location's use of a Limit.
type LimitUse struct {
	Limit *Limit
	// Burst is how many requests may be over the rate; Count how many connections may be
	// open.
	Burst, Count int
}
