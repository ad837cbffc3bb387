// Package model says what nginx shall serve, as plain data: servers, their locations,
// the upstreams behind them, certificates and password files. Nothing in it is text of
// nginx's configuration: translate makes it from Kubernetes' objects, and render, the
// one place that writes directives, makes the configuration from it.
//
// Everything is ordered, so that the same model always renders to the same bytes.
package model

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Config is all that nginx serves.
type Config struct {
	// Servers are sorted by name; the first is the default one, which answers for hosts
	// that no other names.
	Servers []*Server
	// Upstreams are sorted by name. A location names one by it.
	Upstreams []*Upstream
	// Certificate answers clients that ask for no host that has one of its own.
	Certificate *KeyPair
	// Limits are the shared counters that locations' policies name, sorted by name.
	Limits []*Limit
}

// Server is one virtual host.
type Server struct {
	// Hosts are its names, at least one but for the default server: "example.com" or
	// "*.example.com", where the star is one label. Lower case, checked.
	Hosts []string
	// Certificate is nil for a host that has none of its own.
	Certificate *KeyPair
	// HTTPS says that some Ingress lists the host under tls, so that it may redirect.
	HTTPS bool
	// RedirectTo, when set, makes the server do nothing but send clients to that host
	// (the other one of example.com and www.example.com).
	RedirectTo string
	// AppRoot is where a client that asks for / is sent; empty for none.
	AppRoot string
	// Locations are in the order that nginx needs: where it tries regular expressions one
	// after another, the first that fits is right.
	Locations []*Location
	// Fallback answers what no location takes: nil for 404.
	Fallback *Location
	// Ciphers are the host's own (ssl-ciphers); empty for the global ones.
	Ciphers string
	// PreferServerCiphers is nil for the global value.
	PreferServerCiphers *bool
	// Snippet is an operator-approved piece of configuration; see translate.Options.
	Snippet string
	// Owner is the Ingress that named the host first.
	Owner types.NamespacedName
}

// Match is how a location's path is compared.
type Match int

// The ways to compare.
const (
	// Exact takes the path alone.
	Exact Match = iota
	// Prefix takes the path and what lies below it, element by element. The path has no
	// slash at its end, but for "/".
	Prefix
	// TextPrefix takes everything that starts with the path's text (what ingress-nginx
	// makes of ImplementationSpecific).
	TextPrefix
	// Regex takes what a regular expression fits at the start, whatever the case.
	Regex
)

// Location is one path of a server.
type Location struct {
	Path  string
	Match Match
	// Ordered says that the server has regular expressions, so that this one is rendered
	// as one too and its place among Server.Locations counts.
	Ordered bool
	// Backend is where requests go; its Upstream is empty when nothing is there to answer
	// (503).
	Backend Backend
	// Canary, when set, takes some of the requests.
	Canary *Canary
	// Policy is the Ingress's annotations; shared by its locations, never nil.
	Policy *Policy
	// Denied, when not empty, makes the location answer 503: what should have guarded it
	// is wrong. The text is for a comment and people only.
	Denied string
	// RedirectHTTPS sends clients of plain HTTP to HTTPS.
	RedirectHTTPS bool
	// Owner is the Ingress.
	Owner types.NamespacedName
	// Service and Port name the backend, for the log and for error pages.
	Service, Port string
}

// Protocol is what a backend speaks.
type Protocol string

// The protocols.
const (
	HTTP  Protocol = "HTTP"
	HTTPS Protocol = "HTTPS"
	GRPC  Protocol = "GRPC"
	GRPCS Protocol = "GRPCS"
)

// Backend is where requests go: an upstream, or a name that nginx looks up itself.
type Backend struct {
	// Upstream is the name of one of Config.Upstreams.
	Upstream string
	// External is "host:port" of a Service of type ExternalName.
	External string
}

// Empty tells that nothing is there to answer.
func (b Backend) Empty() bool { return b.Upstream == "" && b.External == "" }

// Upstream is a group of endpoints that share requests.
type Upstream struct {
	Name string
	// Endpoints are sorted and unique; never empty.
	Endpoints []netip.AddrPort
	// Sticky keeps a client on its endpoint by a cookie; nil for none.
	Sticky *Cookie
	// HashBy keeps requests with the same value on one endpoint: an nginx variable, checked.
	HashBy string
}

// Cookie is what keeps a client on its endpoint.
type Cookie struct {
	Name string
	// Path, Domain and SameSite are attributes; empty ones are not sent.
	Path, Domain, SameSite string
	// MaxAge is 0 for a cookie that ends with the browser's session.
	MaxAge time.Duration
	// Secure is sent also when the client came by plain HTTP.
	Secure bool
}

// Canary says which requests go to the other backend. A header decides before a cookie,
// a cookie before the weight.
type Canary struct {
	Backend Backend
	// Header is a header's name. Without Value and Pattern, "always" and "never" decide.
	Header, Value, Pattern string
	// Cookie is a cookie's name; "always" and "never" decide.
	Cookie string
	// Weight of Total requests go to the backend.
	Weight, Total int
}

// KeyPair is a certificate with its chain and key, PEM. ID is made of the content.
type KeyPair struct {
	ID   string
	Cert []byte
	Key  []byte
}

// UserFile is a password file as nginx reads it. ID is made of the content.
type UserFile struct {
	ID   string
	Data []byte
}

// Limit is one shared counter: of requests a second or minute, or of connections.
type Limit struct {
	// Name is unique and made of what it counts, so that a reload keeps the count.
	Name string
	// PerSecond and PerMinute are rates; both are 0 for a counter of connections.
	PerSecond, PerMinute int
	// Except are the addresses that are not counted.
	Except []netip.Prefix
}
