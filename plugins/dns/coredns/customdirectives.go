package coredns

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/coredns/caddy/caddyfile"
)

// lines are the tokens of a directive's block, line by line, without its braces.
func lines(d []caddyfile.Token) [][]string {
	var all [][]string
	open := slices.IndexFunc(d, func(t caddyfile.Token) bool { return t.Text == "{" })
	if open < 0 {
		return nil
	}
	for n := open + 1; n < len(d); n++ {
		if n == open+1 || newLine(d[n-1], d[n]) {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], d[n].Text)
	}
	return all
}

// checkForward takes addresses only: names would be looked up, and files read.
func checkForward(d []caddyfile.Token, rules customRules) ([]caddyfile.Token, error) {
	open := slices.IndexFunc(d, func(t caddyfile.Token) bool { return t.Text == "{" })
	if open < 0 {
		open = len(d)
	}
	if open < 3 {
		return nil, errors.New("want a zone and upstreams: forward . 192.0.2.53")
	}
	checked := slices.Clone(d[:2])
	for _, to := range d[2:open] {
		if to.Text == hostResolvConf {
			if len(rules.upstreams) == 0 {
				return nil, errors.New("the node has no resolvers for " + hostResolvConf + " to stand for; name addresses")
			}
			for _, u := range rules.upstreams {
				checked = append(checked, caddyfile.Token{Text: u.String(), Line: to.Line})
			}
			continue
		}
		if err := checkTarget(to.Text, rules); err != nil {
			return nil, err
		}
		checked = append(checked, to)
	}
	for _, line := range lines(d) {
		if line[0] == "tls" && len(line) > 1 {
			return nil, errors.New("tls takes no files here; tls_servername checks the upstream against the node's authorities")
		}
		if line[0] == "resolver" {
			return nil, errors.New("resolver is for upstreams by name; name addresses")
		}
	}
	return append(checked, d[open:]...), nil
}

// checkTarget takes "192.0.2.53", "192.0.2.53:53" or "tls://192.0.2.53%name".
func checkTarget(to string, rules customRules) error {
	scheme, rest, ok := strings.Cut(to, "://")
	if !ok {
		scheme, rest = "dns", to
	}
	if scheme != "dns" && scheme != "tls" && scheme != "https" {
		return fmt.Errorf("%.80q is no upstream; allowed are addresses, tls:// and https:// with an address", to)
	}
	if scheme != "dns" {
		rest, _, _ = strings.Cut(rest, "%") // the server's name
	}
	upstream, err := parseUpstream(strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"))
	if err != nil {
		if upstream, err = parseUpstream(rest); err != nil {
			return err
		}
	}
	if slices.Contains(rules.self, upstream.Addr()) {
		return fmt.Errorf("%s is the cluster's own DNS: queries would go round in a circle", to)
	}
	return nil
}

// checkCache bounds the memory.
func checkCache(d []caddyfile.Token) error {
	for _, line := range lines(d) {
		if line[0] != "success" && line[0] != "denial" || len(line) < 2 {
			continue
		}
		var entries int
		if _, err := fmt.Sscanf(line[1], "%d", &entries); err != nil || entries < 0 || entries > maxCacheEntries {
			return fmt.Errorf("%s %.20s: want a number of entries, %d at most", line[0], line[1], maxCacheEntries)
		}
	}
	return nil
}

// writeDirective is a directive as a Corefile says it. It is checked to be read again as
// it was.
func writeDirective(d []caddyfile.Token) (string, error) {
	var b strings.Builder
	b.WriteString("    ")
	for n, token := range d {
		if n > 0 {
			if newLine(d[n-1], token) {
				b.WriteString("\n    ")
			} else {
				b.WriteByte(' ')
			}
		}
		b.WriteString(quote(token.Text))
	}
	b.WriteByte('\n')
	again := caddyfile.NewDispenser("", strings.NewReader(b.String()))
	var before caddyfile.Token
	for n, token := range d {
		if !again.Next() || again.Val() != token.Text ||
			n > 0 && newLine(d[n-1], token) != newLine(before, caddyfile.Token{Line: again.Line()}) {
			return "", fmt.Errorf("%.40q can't be taken over; write it without quotes or backslashes", token.Text)
		}
		before = caddyfile.Token{Text: again.Val(), Line: again.Line()}
	}
	if again.Next() {
		return "", errors.New("its quotes can't be taken over")
	}
	return b.String(), nil
}

// quote writes a word of a Corefile.
func quote(word string) string {
	plain := word != "" && !strings.ContainsFunc(word, func(r rune) bool { return unicode.IsSpace(r) || r == '"' || r == '#' })
	if plain {
		return word
	}
	return `"` + strings.ReplaceAll(word, `"`, `\"`) + `"`
}
