package coredns

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/coredns/caddy/caddyfile"
)

// Bounds of coredns-custom: far above what people write.
const (
	maxCustomBytes  = 128 << 10 // of all keys together
	maxCustomTokens = 20000
	maxCustomBlocks = 64
)

// The suffixes of the keys of coredns-custom that mean something, as in k3s: an override is
// added to the block of the cluster, a server is blocks of its own.
const (
	overrideSuffix = ".override"
	serverSuffix   = ".server"
)

// customDirectives are what coredns-custom may use: plugins that neither open sockets of
// their own, nor read files, nor reach into the process.
var customDirectives = []string{
	"acl", "any", "bufsize", "cache", "cancel", "chaos", "dns64", "errors", "forward", "header", "hosts", "loadbalance",
	"local", "log", "metadata", "minimal", "nsid", "rewrite", "template", "whoami",
}

// doneForAll are directives of the usual Corefiles that k3m sees to for all blocks: they
// may stand in a block, and change nothing.
var doneForAll = []string{"health", "loop", "prometheus", "ready", "reload"}

// refusedDirectives say why, where somebody may miss them.
var refusedDirectives = map[string]string{
	"auto":       "it reads files",
	"bind":       "k3m binds the node's pod gateway, for all blocks",
	"debug":      "it would end the process at the first panic of a plugin",
	"dnssec":     "it reads files",
	"file":       "it reads files; hosts, template and rewrite take their records inline",
	"import":     "it reads files; write the lines here",
	"kubernetes": "the cluster's domain is served already; rewrite can give it another name",
	"pprof":      "it opens a socket",
	"root":       "it is for files",
	"secondary":  "it opens connections to transfer zones",
	"tls":        "k3m serves plain DNS to pods",
}

// singles are directives that may stand once in a block. One in an override replaces k3m's.
var singles = []string{"errors", "log", "loadbalance", "cache"}

// answering are directives that may answer for names of the cluster in its place, or change
// its answers, and stand between the cache and the cluster.
var answering = []string{"cache", "header", "minimal", "template", "hosts"}

// anyAnswer is what custom.has knows them by.
const anyAnswer = "an answer"

// customRules are what a check needs to know of the node.
type customRules struct {
	// upstreams are what /etc/resolv.conf stands for.
	upstreams []netip.AddrPort
	// self may not be forwarded to.
	self []netip.Addr
}

// custom is a coredns-custom that was checked. The methods of a nil one are those of none.
type custom struct {
	overrideText, serverText string
	has                      map[string]bool // of the overrides: singles, "forward .", anyAnswer
}

func (c *custom) overrides(directive string) bool { return c != nil && c.has[directive] }

func (c *custom) override() string {
	if c == nil {
		return ""
	}
	return c.overrideText
}

func (c *custom) servers() string {
	if c == nil {
		return ""
	}
	return c.serverText
}

// parseCustom checks the data of a coredns-custom and writes it anew, so that what CoreDNS
// reads is what was checked. The error names the key. A nil result means that there is
// nothing in it.
func parseCustom(data map[string]string, rules customRules) (*custom, error) {
	made := &custom{has: map[string]bool{}}
	total, blocks := 0, 0
	for _, key := range slices.Sorted(maps.Keys(data)) {
		override, server := strings.HasSuffix(key, overrideSuffix), strings.HasSuffix(key, serverSuffix)
		if !override && !server {
			continue
		}
		if total += len(data[key]); total > maxCustomBytes {
			return nil, fmt.Errorf("%s: more than %d bytes in all", key, maxCustomBytes)
		}
		parsed, err := parseBlocks(key, data[key], override)
		if err != nil {
			return nil, err
		}
		if blocks += len(parsed); blocks > maxCustomBlocks {
			return nil, fmt.Errorf("%s: more than %d server blocks in all", key, maxCustomBlocks)
		}
		for _, block := range parsed {
			text, err := made.checkBlock(block, rules, override)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			if override {
				made.overrideText += text
			} else {
				made.serverText += strings.Join(block.Keys, " ") + " {\n    prometheus\n" + text + "}\n"
			}
		}
	}
	if made.overrideText == "" && made.serverText == "" {
		return nil, nil
	}
	return made, nil
}

// parseBlocks reads one key into server blocks: a single one for the zone "." from an
// override. Nothing but the text is read.
func parseBlocks(key, text string, override bool) ([]caddyfile.ServerBlock, error) {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool {
		return r == utf8.RuneError || r == '\ufeff' || unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r)
	}) {
		return nil, fmt.Errorf("%s: holds what is no text", key)
	}
	// caddy's lexer makes no end of a quote that is not closed, and its parser reads files
	// for import and the environment for {$NAME}: look at the tokens first.
	tokens, depth, before := 0, 0, ""
	lexed := caddyfile.NewDispenser(key, strings.NewReader(text))
	for lexed.Next() {
		switch token := lexed.Val(); {
		case token == "{" && strings.HasPrefix(before, "(") && strings.HasSuffix(before, ")"):
			return nil, fmt.Errorf("%s:%d: %.40q: snippets are not read here; write the lines where they belong", key, lexed.Line(), before)
		case token == "import":
			return nil, fmt.Errorf("%s:%d: import is not allowed here: %s", key, lexed.Line(), refusedDirectives["import"])
		case strings.Contains(token, "{$") || strings.Contains(token, "{%"):
			return nil, fmt.Errorf("%s:%d: %q looks like a variable of the environment, which is not read here", key, lexed.Line(), token)
		}
		switch before = lexed.Val(); before {
		case "{":
			depth++
		case "}":
			depth--
		}
		if depth < 0 {
			return nil, fmt.Errorf("%s:%d: its braces do not match", key, lexed.Line())
		}
		if tokens++; tokens > maxCustomTokens {
			return nil, fmt.Errorf("%s: more than %d words", key, maxCustomTokens)
		}
	}
	if tokens == 0 {
		return nil, nil
	}
	if depth > 0 {
		return nil, fmt.Errorf("%s: its braces do not match: %d are not closed", key, depth)
	}
	if override {
		text = ". { " + text + "\n}\n" // lines keep their numbers
	}
	blocks, err := caddyfile.Parse(key, strings.NewReader(text), nil)
	if err != nil {
		return nil, err
	}
	if override && (len(blocks) != 1 || !slices.Equal(blocks[0].Keys, []string{"."})) {
		return nil, fmt.Errorf("%s: it is more than lines of one block; a block of its own belongs into a key that ends in %s", key, serverSuffix)
	}
	return blocks, nil
}

// checkBlock writes the directives of a block anew.
func (c *custom) checkBlock(block caddyfile.ServerBlock, rules customRules, override bool) (string, error) {
	if !override {
		for _, key := range block.Keys {
			if err := checkZone(key); err != nil {
				return "", err
			}
		}
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(block.Tokens)) {
		if slices.Contains(doneForAll, name) {
			continue
		}
		if !slices.Contains(customDirectives, name) {
			if why, ok := refusedDirectives[name]; ok {
				return "", fmt.Errorf("%s is not allowed here: %s", name, why)
			}
			return "", fmt.Errorf("unknown plugin %.40q%s", name, allowed(name, customDirectives))
		}
		for _, d := range splitDirectives(name, block.Tokens[name]) {
			line := d[0].Line
			checked, err := c.checkDirective(name, d, rules, override)
			if err != nil {
				return "", fmt.Errorf("line %d: %s: %w", line, name, err)
			}
			written, err := writeDirective(checked)
			if err != nil {
				return "", fmt.Errorf("line %d: %s: %w", line, name, err)
			}
			text.WriteString(written)
		}
	}
	return text.String(), nil
}

// checkZone takes zones and subnets for plain DNS on port 53.
func checkZone(key string) error {
	zone := key
	if scheme, rest, ok := strings.Cut(key, "://"); ok {
		if scheme != "dns" {
			return fmt.Errorf("server block %.80q: only plain DNS is served to pods", key)
		}
		zone = rest
	}
	if n := strings.LastIndexByte(zone, ':'); n >= 0 && !strings.Contains(zone[n:], "]") && strings.Count(zone, ":") == 1 {
		if zone[n+1:] != fmt.Sprint(dnsPort) {
			return fmt.Errorf("server block %.80q: only port %d is served", key, dnsPort)
		}
		zone = zone[:n]
	}
	if zone == "" || len(zone) > 253 || strings.ContainsFunc(zone, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_/:[]", r)
	}) {
		return fmt.Errorf("server block %.80q: no zone", key)
	}
	return nil
}

// splitDirectives cuts the tokens that caddy keeps under a directive's name into its
// single uses.
func splitDirectives(name string, tokens []caddyfile.Token) [][]caddyfile.Token {
	var uses [][]caddyfile.Token
	depth := 0
	for n, token := range tokens {
		if n == 0 || depth == 0 && token.Text == name && newLine(tokens[n-1], token) {
			uses = append(uses, nil)
		}
		switch token.Text {
		case "{":
			depth++
		case "}":
			depth--
		}
		last := &uses[len(uses)-1]
		*last = append(*last, token)
	}
	return uses
}

// newLine is the rule of caddy's dispenser.
func newLine(before, token caddyfile.Token) bool {
	return before.Line+strings.Count(before.Text, "\n") < token.Line
}

// checkDirective refuses what a directive must not do, and returns its tokens with what it
// may not choose filled in.
func (c *custom) checkDirective(name string, d []caddyfile.Token, rules customRules, override bool) ([]caddyfile.Token, error) {
	if override && slices.Contains(singles, name) {
		if c.has[name] {
			return nil, errors.New("it is there twice, but may stand once in the block of the cluster")
		}
		c.has[name] = true
	}
	if override && slices.Contains(answering, name) {
		c.has[anyAnswer] = true
	}
	if err := checkBraces(d); err != nil {
		return nil, err
	}
	switch name {
	case "forward":
		checked, err := checkForward(d, rules)
		if err == nil && override && (d[1].Text == "." || d[1].Text == ".:53") {
			c.has["forward ."] = true
		}
		return checked, err
	case "hosts":
		// Its first argument is a file, /etc/hosts when there is none.
		if len(d) > 1 && d[1].Text != "{" {
			return nil, errors.New("it reads no file here: leave out what stands before the brace, and write the entries into the block")
		}
		return slices.Insert(slices.Clone(d), 1, caddyfile.Token{Text: "/dev/null", Line: d[0].Line}), nil
	case "cache":
		return d, checkCache(d)
	case "loadbalance":
		if len(d) > 1 && d[1].Text != "round_robin" {
			return nil, fmt.Errorf("%.40q reads its weights from a file; only round_robin is allowed here", d[1].Text)
		}
	}
	return d, nil
}
