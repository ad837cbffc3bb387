// Package redact takes secrets out of text that somebody is going to send to somebody else.
//
// It knows them in three ways: by value, where the caller knows what is secret on this machine
// (also encoded, and line by line); by the names that stand before them in configuration,
// command lines and logs; and by their form, such as that of a private key. What it is in doubt
// about it takes out.
package redact

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Mark stands where a secret stood.
const Mark = "[redacted]"

const (
	// shortest is the length of a value that is looked for: shorter ones are parts of words.
	shortest = 6
	// shortestLine is that of a line of a value of several lines, which also must be one word:
	// the lines of a key are, those of a configuration file are often not.
	shortestLine = 16
)

// Redactor takes secrets out. It is safe for use by several goroutines.
type Redactor struct{ values *strings.Replacer }

// New makes one that knows these values.
func New(secrets []string) *Redactor {
	var pairs []string
	seen := map[string]bool{}
	add := func(value string, shortest int) {
		if len(value) >= shortest && !seen[value] {
			seen[value] = true
			pairs = append(pairs, value)
		}
	}
	for _, secret := range secrets {
		secret = strings.TrimSpace(secret)
		if len(secret) < shortest {
			continue
		}
		for _, form := range forms(secret) {
			add(form, shortest)
		}
		lines := strings.Split(secret, "\n")
		for _, line := range lines[1:] {
			if line = strings.TrimSpace(line); !strings.ContainsAny(line, " \t") {
				add(line, shortestLine)
			}
		}
		if len(lines) > 1 && !strings.ContainsAny(lines[0], " \t") {
			add(lines[0], shortestLine)
		}
	}
	// Where one is the beginning of another, the longer one goes.
	slices.SortFunc(pairs, func(a, b string) int { return len(b) - len(a) })
	words := make([]string, 0, 2*len(pairs))
	for _, value := range pairs {
		words = append(words, value, Mark)
	}
	return &Redactor{values: strings.NewReplacer(words...)}
}

// forms are how a value may have been written.
func forms(secret string) []string {
	all := []string{secret, url.QueryEscape(secret), url.PathEscape(secret)}
	if quoted, err := json.Marshal(secret); err == nil {
		all = append(all, strings.Trim(string(quoted), `"`))
	}
	for _, end := range []string{"", "\n"} { // echo secret | base64
		raw := []byte(secret + end)
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			encoded := encoding.EncodeToString(raw)
			all = append(all, encoded, strings.TrimRight(encoded, "="))
		}
	}
	return all
}

// names are words in the names of what is secret.
const names = `passw(?:or)?d|passwd|passphrase|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key|signing[_-]?key|client[_-]?key|encryption[_-]?key|psk`

// rule is one form of secrets; the replacement keeps what says that there was one.
type rule struct {
	form *regexp.Regexp
	with string
}

// privateKey is the only form that goes over lines.
var privateKey = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)

// rules are for single lines.
var rules = []rule{
	// A PEM block in base64, of a key or a certificate.
	{regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/_-]+=*`), Mark},
	// JSON web tokens, tokens of nodes, AWS's keys.
	{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), Mark},
	{regexp.MustCompile(`K10[0-9a-f]{64}::[^\s"']+`), Mark},
	{regexp.MustCompile(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`), Mark},
	// Authorization: Bearer …
	{regexp.MustCompile(`(?i)\b(authorization["']?\s*[:=]\s*["']?)[^\r\n"']+`), "${1}" + Mark},
	{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}`), "${1} " + Mark},
	// https://user:password@host
	{regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@"']+@`), "${1}" + Mark + "@"},
	// password=…, "token": "…", client-secret: …
	{regexp.MustCompile(`(?i)((?:` + names + `)[A-Za-z0-9_.-]*\\?["']?\s*[:=]\s*)(?:\\?"(?:[^"\\]|\\.)*"?|'[^'\r\n]*'?|[^\s,;&"'}\]]+)`), "${1}" + Mark},
	// --token …
	{regexp.MustCompile(`(?i)(--?[a-z0-9-]*(?:` + names + `)[a-z0-9-]*\s+)[^\s-]\S*`), "${1}" + Mark},
}

// hints are in every line that a rule is for, in small letters: looking for them is much cheaper.
var hints = []string{"passw", "passphrase", "secret", "token", "credential", "key", "psk", "authorization", "bearer", "basic", "://", "eyj", "k10", "ls0tls1crudjti", "akia", "asia"}

// bootstrapToken has nothing to look for.
var bootstrapToken = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// Text takes the secrets out of text.
func (r *Redactor) Text(text string) string {
	text = privateKey.ReplaceAllString(r.values.Replace(text), Mark)
	var clean strings.Builder
	clean.Grow(len(text))
	for line := range strings.Lines(text) {
		clean.WriteString(redactLine(line))
	}
	return clean.String()
}

func redactLine(line string) string {
	if strings.Contains(line, ".") {
		line = bootstrapToken.ReplaceAllString(line, Mark)
	}
	lower := strings.ToLower(line)
	if !slices.ContainsFunc(hints, func(hint string) bool { return strings.Contains(lower, hint) }) {
		return line
	}
	for _, rule := range rules {
		line = rule.form.ReplaceAllString(line, rule.with)
	}
	return line
}

var secretName = regexp.MustCompile(`(?i)` + names + `|^auths?$|^key$`)

// IsSecretName tells whether the value of what is called that is to be kept secret.
func IsSecretName(name string) bool { return secretName.MatchString(name) }
