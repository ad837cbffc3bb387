package coredns

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/coredns/caddy/caddyfile"
)

// checkBraces takes a directive with one block at most, as people write it: the brace that opens
// it ends the directive's line, and the one that closes it stands on a line of its own, the last.
// CoreDNS goes on reading elsewhere, and would find there what no check has seen.
func checkBraces(d []caddyfile.Token) error {
	opened := false
	for n, token := range d {
		last := n == len(d)-1
		switch {
		case token.Text == "{" && (opened || newLine(d[0], token) || last || !newLine(token, d[n+1])):
			return errors.New("a brace opens its block, one at most, at the end of its line")
		case token.Text == "{":
			opened = true
		case token.Text == "}" && (!opened || !last || !newLine(d[n-1], token)):
			return errors.New("the brace that closes its block stands on a line of its own")
		}
	}
	return nil
}

// lines are the tokens of a directive's block, line by line, without its braces.
func lines(d []caddyfile.Token) [][]string {
	var all [][]string
	open := slices.IndexFunc(d, func(t caddyfile.Token) bool { return t.Text == "{" })
	if open < 0 {
		return nil
	}
	for n := open + 1; n < len(d) && d[n].Text != "}"; n++ {
		if n == open+1 || newLine(d[n-1], d[n]) {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], d[n].Text)
	}
	return all
}

// forwardOptions are those of forward, with the number of their arguments; manyArguments take the
// rest of their line. CoreDNS reads what stands behind the arguments of others as the next option.
var forwardOptions = map[string]int{
	"except": manyArguments, "max_fails": 1, "max_connect_attempts": 1, "health_check": manyArguments,
	"force_tcp": 0, "prefer_udp": 0, "tls": 0, "tls_servername": 1, "expire": 1, "max_age": 1, "max_idle_conns": 1,
	"read_timeout": 1, "doh_method": 1, "policy": 1, "max_concurrent": 1, "next": manyArguments, "next_on_nodata": 0,
	"failfast_all_unhealthy_upstreams": 0, "failover": manyArguments, "source_address": 1,
}

const manyArguments = -1

// checkForwardOption takes a line of forward's block.
func checkForwardOption(line []string) error {
	option, arguments := line[0], len(line)-1
	count, known := forwardOptions[option]
	switch {
	case option == "tls" && arguments > 0:
		return errors.New("tls takes no files here; tls_servername checks the upstream against the node's authorities")
	case option == "resolver":
		return errors.New("resolver is for upstreams by name; name addresses")
	case !known:
		return fmt.Errorf("unknown option %.40q%s", option, allowed(option, slices.Sorted(maps.Keys(forwardOptions))))
	case count != manyArguments && arguments != count:
		return fmt.Errorf("%s: want %d words behind it, have %d", option, count, arguments)
	}
	return nil
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
		if err := checkForwardOption(line); err != nil {
			return nil, err
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
