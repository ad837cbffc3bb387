package traefik

import (
	"crypto/sha256"
	"fmt"
	"math"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

// The priorities of routers of Ingresses. Traefik takes the router with the highest; one without a priority has its
// rule's length, which is what IngressRoutes have. So a router for an exact host has the length that Traefik's own
// provider of Ingresses would give its rule as a prefix, and the two go together as they did there, while those for
// wildcards, for all hosts, and the default backend come after all others, as the Ingress API wants it.
const (
	wildcardPriority = -1_000_000
	anyHostPriority  = -2_000_000
	defaultPriority  = math.MinInt32
	// maxRanked bounds what a path adds, so that the classes above stay apart.
	maxRanked = 500_000
)

// rule is the rule of a router and its priority.
//
// Among paths the longer comes first, and an exact one before a prefix of the same length: a request that an exact path
// of n bytes matches is matched by no prefix of more than n.
func rule(claim kit.Claim, matcher string) (text string, priority int) {
	host, base := hostRule(claim.Host)
	path, bonus := pathRule(claim, matcher)
	text = path
	if host != "" {
		text = host + " && " + path
	}
	return text, base + min(len(claim.Path), maxRanked) + bonus
}

// hostRule matches a host; empty for all. The API has checked that it is a name of lower-case labels, the first of which
// may be an asterisk for exactly one label.
func hostRule(host string) (text string, base int) {
	switch {
	case host == "":
		return "", anyHostPriority
	case strings.HasPrefix(host, "*."):
		return "HostRegexp(" + quote("{subdomain:[a-zA-Z0-9-]+}."+strings.TrimPrefix(host, "*.")) + ")", wildcardPriority
	}
	return "Host(" + quote(host) + ")", len("Host(``) && PathPrefix(``)") + len(host)
}

func pathRule(claim kit.Claim, matcher string) (text string, bonus int) {
	switch claim.PathType {
	case networkingv1.PathTypeExact:
		return "Path(" + quote(literal(claim.Path)) + ")", 1
	case networkingv1.PathTypePrefix:
		if claim.Path == "/" {
			return "PathPrefix(`/`)", 0
		}
		// Element by element: /foo matches /foo, /foo/ and /foo/bar, but not /foobar.
		path := literal(claim.Path)
		return "(Path(" + quote(path) + ") || PathPrefix(" + quote(path+"/") + "))", 0
	}
	// A path of the implementation's own kind may hold Traefik's placeholders.
	return matcher + "(" + quote(claim.Path) + ")", 0
}

// literal is a path in which braces, which begin and end a placeholder of Traefik's, stand for themselves.
func literal(path string) string {
	if !strings.ContainsAny(path, "{}") {
		return path
	}
	var b strings.Builder
	n := 0
	for _, r := range path {
		if r == '{' || r == '}' {
			fmt.Fprintf(&b, `{brace%d:\x%02X}`, n, r)
			n++
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// quote is a string literal of Traefik's rules, which are Go's. No value can end it and begin a rule of its own.
func quote(value string) string {
	if strings.ContainsRune(value, '`') || !strconv.CanBackquote(value) {
		return strconv.Quote(value)
	}
	return "`" + value + "`"
}

// names gives names that mean one thing each: the same text from another origin gets a hash of its origin appended.
type names map[string]string

func (n names) name(text, origin string) string {
	// More than once where somebody has a name that ends with another's hash.
	for owner, taken := n[text]; taken && owner != origin; owner, taken = n[text] {
		sum := sha256.Sum256([]byte(origin))
		text = fmt.Sprintf("%s-%x", text, sum[:8])
	}
	n[text] = origin
	return text
}
