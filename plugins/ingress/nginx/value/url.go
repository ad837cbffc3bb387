package value

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strings"
)

// variables are those of nginx that an annotation's URL may hold. None holds what a
// client can put a line's end into ($uri could: it is decoded).
var variables = map[string]bool{
	"request_uri": true, "escaped_request_uri": true, "host": true, "http_host": true, "best_http_host": true,
	"scheme": true, "pass_access_scheme": true, "args": true, "query_string": true, "is_args": true, "remote_addr": true,
	"server_name": true, "request_method": true, "request_id": true, "req_id": true,
}

var variable = regexp.MustCompile(`\$(?:\{([a-zA-Z0-9_]*)\}|([a-zA-Z0-9_]*))`)

// family are variables that a client names.
var family = regexp.MustCompile(`^(?:http|arg|cookie)_[a-z0-9_]{1,60}$`)

// AllowedVariable tells whether an annotation's URL may hold the variable.
func AllowedVariable(name string) bool { return variables[name] || family.MatchString(name) }

// Template splits text at the variables that annotations may use: part is called for
// each piece, with variable true for a variable's name. What looks like another variable
// is text.
func Template(text string, part func(piece string, variable bool)) {
	for text != "" {
		at := variable.FindStringSubmatchIndex(text)
		if at == nil {
			part(text, false)
			return
		}
		group := 2
		if at[2] < 0 {
			group = 4
		}
		name := text[at[group]:at[group+1]]
		if at[0] > 0 {
			part(text[:at[0]], false)
		}
		if AllowedVariable(name) {
			part(name, true)
		} else {
			part(text[at[0]:at[1]], false)
		}
		text = text[at[1]:]
	}
}

// UnknownVariable is the first variable in text that annotations may not use; "" for none.
func UnknownVariable(text string) string {
	for _, found := range variable.FindAllStringSubmatch(text, -1) {
		if !AllowedVariable(found[1] + found[2]) {
			return found[0]
		}
	}
	return ""
}

// urlText are the characters of a URL, and of variables in it.
var urlText = regexp.MustCompile(`^[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%{}-]+$`)

// URL reads an absolute http or https URL, or one whose scheme or host is a variable. A path
// alone passes where path says so.
func URL(text string, path bool) (string, error) {
	text = strings.TrimSpace(text)
	if len(text) > MaxText || !urlText.MatchString(text) {
		return "", fmt.Errorf("%s is not a URL", Show(text))
	}
	if name := UnknownVariable(text); name != "" {
		return "", fmt.Errorf("%s holds the variable %s, which annotations may not use ($request_uri, $host, $scheme and the like may)",
			Show(text), Show(name))
	}
	if path && strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//") {
		return text, nil
	}
	// Variables stand for what they will be.
	var plain strings.Builder
	Template(text, func(piece string, variable bool) {
		switch {
		case !variable:
			plain.WriteString(piece)
		case piece == "scheme" || piece == "pass_access_scheme":
			plain.WriteString("https")
		case piece == "request_uri":
			plain.WriteString("/x")
		default:
			plain.WriteString("x")
		}
	})
	parsed, err := url.Parse(plain.String())
	switch {
	case err != nil:
		return "", fmt.Errorf("%s is not a URL", Show(text))
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return "", fmt.Errorf("%s does not begin with http:// or https://", Show(text))
	case parsed.Hostname() == "":
		return "", fmt.Errorf("%s names no host", Show(text))
	}
	return text, nil
}

// Outside tells whether a host may be asked by name of what a user wrote. Loopback and
// link-local addresses are not: they are the node's own, and nobody else's to reach.
func Outside(host string) error {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return fmt.Errorf("%s is the node itself", Show(host))
	}
	if host == "unix" {
		return fmt.Errorf("%s is a socket of the node's to nginx, no host", Show(host))
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		// A name; but "127.1" and "2130706433" are addresses to some resolvers.
		if last := host[strings.LastIndexByte(host, '.')+1:]; last != "" && strings.Trim(last, "0123456789") == "" {
			return fmt.Errorf("%s is not a host name", Show(host))
		}
		return nil
	}
	if addr = addr.Unmap(); addr.IsLoopback() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsMulticast() {
		return fmt.Errorf("%s is the node itself, or of its own network", Show(host))
	}
	return nil
}

// maxRegexp bounds an expression, in bytes.
const maxRegexp = 512

// Regexp reads a regular expression that Go and PCRE read alike, and tells how many groups
// it has. Look-around and back-references are not among them: they make a request
// costly beyond measure.
func Regexp(text string) (groups int, err error) {
	if len(text) > maxRegexp {
		return 0, fmt.Errorf("the expression has %d bytes, want %d at most", len(text), maxRegexp)
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return 0, fmt.Errorf("%s has characters that can't be printed", Show(text))
		}
	}
	// What Go reads and PCRE doesn't, or otherwise.
	if strings.Contains(text, `\C`) || strings.Contains(text, `\Q`) || strings.Contains(text, "(?") && !plainGroups(text) {
		return 0, fmt.Errorf("%s holds \\C, \\Q or a group with options or a name; use (…) and (?:…)", Show(text))
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return 0, fmt.Errorf("%s is not a regular expression (without look-around and back-references): %w", Show(text), err)
	}
	return parsed.MaxCap(), nil
}

// plainGroups tells that "(?" only begins "(?:" and "(?i)".
func plainGroups(text string) bool {
	return !strings.Contains(strings.NewReplacer("(?:", "(", "(?i)", "").Replace(text), "(?")
}
