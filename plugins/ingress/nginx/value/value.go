// Package value reads the small values of annotations and ConfigMaps, each by a narrow
// grammar: what doesn't fit is an error that says what would. Values are trimmed of
// surrounding space first, as ingress-nginx does.
package value

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
)

// MaxText bounds a text value, in bytes.
const MaxText = 2048

// maxList bounds a list's entries.
const maxList = 1000

// Bool reads true, false, on and off.
func Bool(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "on", "1", "yes":
		return true, nil
	case "false", "off", "0", "no":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", Show(text))
}

// Int reads a whole number from low to high.
func Int(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 0, fmt.Errorf("%s is not a whole number", Show(text))
	}
	if n < low || n > high {
		return 0, fmt.Errorf("%d is outside %d to %d", n, low, high)
	}
	return n, nil
}

var duration = regexp.MustCompile(`^([0-9]{1,9})(ms|s|m|h|d)?$`)

// Duration reads seconds, or a number with the unit ms, s, m, h or d, up to a year.
func Duration(text string) (time.Duration, error) {
	found := duration.FindStringSubmatch(strings.TrimSpace(text))
	if found == nil {
		return 0, fmt.Errorf("%s is not a number of seconds (nor one with ms, s, m, h or d)", Show(text))
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		return 0, fmt.Errorf("%s is not a number of seconds: %w", Show(text), err)
	}
	unit := map[string]time.Duration{"": time.Second, "ms": time.Millisecond, "s": time.Second, "m": time.Minute,
		"h": time.Hour, "d": 24 * time.Hour}[found[2]]
	if time.Duration(n) <= 365*24*time.Hour/unit {
		return time.Duration(n) * unit, nil
	}
	return 0, fmt.Errorf("%s is longer than a year", Show(text))
}

var size = regexp.MustCompile(`^([0-9]{1,12})([kKmMgG]?)$`)

// Size reads a number of bytes, with k, m or g for their multiples.
func Size(text string) (int64, error) {
	found := size.FindStringSubmatch(strings.TrimSpace(text))
	if found == nil {
		return 0, fmt.Errorf("%s is not a size such as 8k, 10m or 1g", Show(text))
	}
	n, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a size: %w", Show(text), err)
	}
	shift := map[string]uint{"": 0, "k": 10, "m": 20, "g": 30}[strings.ToLower(found[2])]
	if n > math.MaxInt64>>(shift+12) {
		return 0, fmt.Errorf("%s is too big", Show(text))
	}
	return n << shift, nil
}

// MemorySize reads a size of a buffer, up to limit bytes, and not 0.
func MemorySize(text string, limit int64) (int64, error) {
	n, err := Size(text)
	if err == nil && (n < 1 || n > limit) {
		err = fmt.Errorf("%s is outside 1 to %d bytes", Show(text), limit)
	}
	return n, err
}

// Prefixes reads addresses and CIDRs, with commas between them.
func Prefixes(text string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, item := range List(text) {
		prefix, err := netip.ParsePrefix(item)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(item); err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%s is neither an address nor a CIDR", Show(item))
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		list = append(list, prefix.Masked())
	}
	if len(list) == 0 || len(list) > maxList {
		return nil, fmt.Errorf("%d addresses, want 1 to %d", len(list), maxList)
	}
	return list, nil
}

// List splits at commas and drops what is empty.
func List(text string) []string {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// Codes reads HTTP status codes from low to high, with commas between them.
func Codes(text string, low, high int) ([]int, error) {
	var codes []int
	for _, item := range List(text) {
		code, err := Int(item, low, high)
		if err != nil {
			return nil, err
		}
		codes = append(codes, code)
	}
	if len(codes) == 0 || len(codes) > 100 {
		return nil, fmt.Errorf("%d codes, want 1 to 100", len(codes))
	}
	return codes, nil
}

// Host reads a host name, with "*." in front of it allowed, and returns it in lower case.
func Host(text string) (string, error) {
	host := strings.ToLower(strings.TrimSpace(text))
	if len(validation.IsDNS1123Subdomain(strings.TrimPrefix(host, "*."))) > 0 {
		return "", fmt.Errorf("%s is not a host name", Show(text))
	}
	return host, nil
}

var (
	headerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)
	cookieName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9!#%&'*+.^_|~-]{0,127}$`)
	method     = regexp.MustCompile(`^[A-Z]{1,20}$`)
	cookiePath = regexp.MustCompile(`^/[A-Za-z0-9/._~%!&'()*+,=:@-]*$`)
)

// HeaderName reads a header's name.
func HeaderName(text string) (string, error) {
	return match(text, headerName, "a header's name")
}

// CookieName reads a cookie's name.
func CookieName(text string) (string, error) {
	return match(text, cookieName, "a cookie's name")
}

// CookiePath reads a path that a cookie can be for.
func CookiePath(text string) (string, error) {
	return match(text, cookiePath, "a path for a cookie")
}

// Method reads an HTTP method.
func Method(text string) (string, error) {
	return match(text, method, "an HTTP method")
}

func match(text string, grammar *regexp.Regexp, what string) (string, error) {
	text = strings.TrimSpace(text)
	if len(text) > MaxText || !grammar.MatchString(text) {
		return "", fmt.Errorf("%s is not %s", Show(text), what)
	}
	return text, nil
}

// HeaderNames reads names of headers with commas between them; "*" where star says so.
func HeaderNames(text string, star bool) ([]string, error) {
	var names []string
	for _, item := range List(text) {
		if !star || item != "*" {
			if _, err := HeaderName(item); err != nil {
				return nil, err
			}
		}
		names = append(names, item)
	}
	if len(names) == 0 || len(names) > 100 {
		return nil, fmt.Errorf("%d names of headers, want 1 to 100", len(names))
	}
	return names, nil
}

// Methods reads HTTP methods with commas between them; "*" is one.
func Methods(text string) ([]string, error) {
	var methods []string
	for _, item := range List(text) {
		if item != "*" {
			if _, err := Method(item); err != nil {
				return nil, err
			}
		}
		methods = append(methods, item)
	}
	if len(methods) == 0 || len(methods) > 30 {
		return nil, fmt.Errorf("%d methods, want 1 to 30", len(methods))
	}
	return methods, nil
}

// Text reads a line of printable text.
func Text(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "" || len(text) > MaxText {
		return "", fmt.Errorf("%d bytes of text, want 1 to %d", len(text), MaxText)
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return "", fmt.Errorf("%s has characters that can't be printed", Show(text))
		}
	}
	return text, nil
}

// OneOf reads one of the words, whatever its case.
func OneOf(text string, words ...string) (string, error) {
	for _, word := range words {
		if strings.EqualFold(strings.TrimSpace(text), word) {
			return word, nil
		}
	}
	return "", fmt.Errorf("%s is not one of %s", Show(text), strings.Join(words, ", "))
}

// Show quotes a value for a message, cut to a bearable length.
func Show(text string) string {
	const most = 80
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
