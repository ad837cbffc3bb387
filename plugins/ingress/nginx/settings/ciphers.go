package settings

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// nginx fails as a whole where OpenSSL finds no cipher or curve in a list; so these are
// names that every OpenSSL from 1.1.1 on knows, and at least one of them is a strong one,
// which none of the exclusions takes away.

var (
	// strong are cipher suites, and words for many of them.
	strong = regexp.MustCompile(`^(?:HIGH|DEFAULT|(?:ECDHE-(?:ECDSA|RSA)|DHE-RSA)-(?:AES(?:128|256)-GCM-SHA(?:256|384)|CHACHA20-POLY1305)|` +
		`(?:EECDH|ECDHE)\+(?:AESGCM|CHACHA20)|ECDHE\+AESGCM|EECDH)$`)
	// other may stand beside them.
	other = regexp.MustCompile(`^(?:(?:ECDHE-(?:ECDSA-|RSA-)|DHE-RSA-|)AES(?:128|256)-(?:GCM-)?SHA(?:256|384)?|(?:EECDH|ECDHE|EDH|DHE|RSA)\+(?:AES(?:128|256|GCM)?|HIGH)|` +
		`AESGCM|CHACHA20|TLS_AES_(?:128|256)_GCM_SHA(?:256|384)|TLS_CHACHA20_POLY1305_SHA256|@STRENGTH|@SECLEVEL=[012])$`)
	// excluded are what may be taken away.
	excluded = regexp.MustCompile(`^[!-](?:aNULL|eNULL|NULL|EXPORT|EXP|LOW|MEDIUM|DES|3DES|RC2|RC4|IDEA|SEED|MD5|PSK|SRP|DSS|aDSS|CAMELLIA|ARIA|` +
		`ADH|AECDH|kRSA|RSA|kDH|kECDH|aDH|aECDH|SHA1|SHA|AESCCM|AESCCM8|DHE|EDH|kEDH|kDHE)$`)
	curve = regexp.MustCompile(`^(?:X25519|X448|prime256v1|secp384r1|secp521r1|P-256|P-384|P-521)$`)
)

// Ciphers reads OpenSSL's list of ciphers.
func Ciphers(text string) (string, error) {
	text = strings.TrimSpace(text)
	if len(text) > value.MaxText {
		return "", fmt.Errorf("a list of %d bytes, want %d at most", len(text), value.MaxText)
	}
	some := false
	dropped := strings.Contains(text, "DHE") && excludes(text, "DHE", "EDH", "kEDH", "kDHE")
	for item := range strings.SplitSeq(text, ":") {
		switch {
		case strong.MatchString(item):
			some = some || !dropped || !strings.HasPrefix(item, "DHE-")
		case !other.MatchString(item) && !excluded.MatchString(item):
			return "", fmt.Errorf("%s is no cipher that OpenSSL surely knows; %s", value.Show(item), cipherHint)
		}
	}
	if !some {
		return "", fmt.Errorf("%s has no strong cipher that is surely there; %s", value.Show(text), cipherHint)
	}
	return text, nil
}

const cipherHint = "name suites such as ECDHE-RSA-AES128-GCM-SHA256, or HIGH, with colons between them"

// excludes tells whether a list takes one of these away.
func excludes(text string, words ...string) bool {
	return slices.ContainsFunc(words, func(word string) bool {
		return slices.ContainsFunc(strings.Split(text, ":"), func(item string) bool { return item == "!"+word || item == "-"+word })
	})
}

// curves reads a list of curves, or auto.
func curves(text string) (string, error) {
	text = strings.TrimSpace(text)
	if text == "auto" {
		return text, nil
	}
	for item := range strings.SplitSeq(text, ":") {
		if !curve.MatchString(item) {
			return "", fmt.Errorf("%s is none of X25519, X448, P-256, P-384, P-521, prime256v1, secp384r1, secp521r1", value.Show(item))
		}
	}
	return text, nil
}
