package render

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// token is one word as nginx's parser reads it. Only this file makes tokens of what is not
// a constant, so that the compiler keeps other strings out of the configuration.
type token string

// dollar is a variable that holds a dollar sign: nginx has no other way to write one
// where it looks for variables.
const dollar = "${k3m_dollar}"

// text quotes a value for a place where nginx looks for no variables: a path, an
// expression, a name. Control characters, which no such value has, are dropped.
func text(s string) token {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	escape(&b, s)
	b.WriteByte('"')
	return token(b.String())
}

// quote quotes a value for a place where nginx looks for variables: there are none in it.
func quote(parts ...string) token {
	var b strings.Builder
	b.WriteByte('"')
	for _, part := range parts {
		literal(&b, part)
	}
	b.WriteByte('"')
	return token(b.String())
}

// template quotes a value in which the variables that annotations may use are variables.
func template(s string) token {
	var b strings.Builder
	b.WriteByte('"')
	value.Template(s, func(piece string, variable bool) {
		if variable {
			b.WriteString("${" + own(piece) + "}")
		} else {
			literal(&b, piece)
		}
	})
	b.WriteByte('"')
	return token(b.String())
}

// own is nginx's, or this package's, name of one of ingress-nginx's variables.
func own(variable string) string {
	switch variable {
	case "best_http_host":
		return "k3m_host"
	case "pass_access_scheme":
		return "k3m_scheme"
	case "escaped_request_uri":
		return "k3m_escaped_uri"
	case "req_id":
		return "k3m_request_id"
	case "proxy_upstream_name":
		return "proxy_host"
	}
	return variable
}

var logVariable = regexp.MustCompile(`\$(?:\{([a-z0-9_]+)\}|([a-z0-9_]+))`)

// logLine quotes a line of the log, in which every variable is one.
func logLine(s string) token {
	var b strings.Builder
	b.WriteByte('"')
	last := 0
	for _, at := range logVariable.FindAllStringSubmatchIndex(s, -1) {
		literal(&b, s[last:at[0]])
		from, to := at[2], at[3]
		if from < 0 {
			from, to = at[4], at[5]
		}
		b.WriteString("${" + own(s[from:to]) + "}")
		last = at[1]
	}
	literal(&b, s[last:])
	b.WriteByte('"')
	return token(b.String())
}

// rewritten quotes the new path of a rewrite, in which $1 to $9 are what the groups took.
func rewritten(s string) token {
	var b strings.Builder
	b.WriteByte('"')
	for at := 0; at < len(s); at++ {
		if s[at] == '$' && at+1 < len(s) && s[at+1] >= '1' && s[at+1] <= '9' {
			b.WriteString(s[at : at+2])
			at++
			continue
		}
		literal(&b, s[at:at+1])
	}
	b.WriteByte('"')
	return token(b.String())
}

func literal(b *strings.Builder, s string) {
	for {
		before, after, found := strings.Cut(s, "$")
		escape(b, before)
		if !found {
			return
		}
		b.WriteString(dollar)
		s = after
	}
}

func escape(b *strings.Builder, s string) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
}

// literalRegex is an expression that fits the text alone, for a map.
func literalRegex(s string) string { return `~^` + regexp.QuoteMeta(s) + `\z` }

func number[T int | int64 | uint16](n T) token { return token(strconv.FormatInt(int64(n), 10)) }

// millis and seconds write times as nginx's directives of either unit read them.
func millis(d time.Duration) token {
	if d%time.Second == 0 {
		return seconds(d)
	}
	return number(d.Milliseconds()) + "ms"
}

func seconds(d time.Duration) token { return number(int64(d/time.Second)) + "s" }

func onOff(on bool) token {
	if on {
		return "on"
	}
	return "off"
}

func prefix(p netip.Prefix) token {
	// Masked drops zones and what is below the mask; an invalid one fits nobody.
	if !p.IsValid() {
		return "255.255.255.255/32"
	}
	return token(p.Masked().String())
}

func address(a netip.AddrPort) token {
	return token(netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()).String())
}

var (
	headerName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)
	upstreamText = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,250}$`)
	externalText = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,250}:[0-9]{1,5}$`)
	wordText     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_:.+!@=/*-]*$`)
)

// upstream is the name of an upstream, which nginx takes for a host's where it is asked for.
func upstream(name string) token {
	if upstreamText.MatchString(name) {
		return token(name)
	}
	return token("x-" + id(name))
}

// header is the variable of a request's header; ok is false for what is no header's name.
func header(kind, name string) (token, bool) {
	if !headerName.MatchString(name) {
		return "", false
	}
	return token("$" + kind + strings.ReplaceAll(strings.ToLower(name), "-", "_")), true
}

// word is a word that needs no quotes; what does gets them.
func word(s string) token {
	if wordText.MatchString(s) {
		return token(s)
	}
	return quote(s)
}

// id makes a name of what it stands for, so that the same content has the same name in
// every configuration.
func id(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:12])
}
