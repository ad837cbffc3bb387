package settings

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// reader takes a key's text into the settings.
type reader func(*Settings, string) error

func boolean(field func(*Settings) *bool) reader {
	return reading(field, value.Bool)
}

func number(field func(*Settings) *int, low, high int) reader {
	return reading(field, func(text string) (int, error) { return value.Int(text, low, high) })
}

func duration(field func(*Settings) *time.Duration) reader {
	return reading(field, value.Duration)
}

func size(field func(*Settings) *int64) reader { return reading(field, value.Size) }

func memory(field func(*Settings) *int64, limit int64) reader {
	return reading(field, func(text string) (int64, error) { return value.MemorySize(text, limit) })
}

func prefixes(field func(*Settings) *[]netip.Prefix) reader {
	return reading(field, value.Prefixes)
}

func word(field func(*Settings) *string, words ...string) reader {
	return reading(field, func(text string) (string, error) { return value.OneOf(text, words...) })
}

// words reads a list with spaces or commas, each item by the grammar.
func words(field func(*Settings) *[]string, grammar *regexp.Regexp, what string) reader {
	return reading(field, func(text string) ([]string, error) {
		items := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '\n' })
		for _, item := range items {
			if len(item) > 256 || !grammar.MatchString(item) {
				return nil, fmt.Errorf("%s is not %s", value.Show(item), what)
			}
		}
		if len(items) == 0 || len(items) > 200 {
			return nil, fmt.Errorf("%d items, want 1 to 200 of %s", len(items), what)
		}
		return items, nil
	})
}

// reading takes a value where it is right.
func reading[T any](field func(*Settings) *T, read func(string) (T, error)) reader {
	return func(s *Settings, text string) error {
		v, err := read(text)
		if err == nil {
			*field(s) = v
		}
		return err
	}
}

var (
	protocol = regexp.MustCompile(`^TLSv1(\.[123])?$`)
	mimeType = regexp.MustCompile(`^(\*|[a-z0-9.+-]+/[a-z0-9.+*-]+)$`)
	urlPath  = regexp.MustCompile(`^/[A-Za-z0-9/._~%-]*$`)
	header   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)
	nextCase = regexp.MustCompile(`^(error|timeout|invalid_header|http_500|http_502|http_503|http_504|http_403|http_404|http_429|` +
		`non_idempotent|off)$`)
)

// NextUpstream reads the cases in which another endpoint is asked.
func NextUpstream(text string) ([]string, error) {
	var s Settings
	err := words(func(s *Settings) *[]string { return &s.NextUpstream }, nextCase, "a case of proxy_next_upstream")(&s, text)
	return s.NextUpstream, err
}

// workers reads a number, or auto.
func workers(s *Settings, text string) error {
	if strings.TrimSpace(text) == "auto" {
		s.Workers = 0
		return nil
	}
	return number(func(s *Settings) *int { return &s.Workers }, 1, 512)(s, text)
}

// largeHeaders reads "4 8k".
func largeHeaders(s *Settings, text string) error {
	count, each, _ := strings.Cut(strings.TrimSpace(text), " ")
	n, err := value.Int(count, 1, 64)
	if err != nil {
		return fmt.Errorf("%w; want a number and a size, such as 4 8k", err)
	}
	bytes, err := value.MemorySize(each, 1<<20)
	if err == nil && bytes < 1<<10 {
		err = fmt.Errorf("%s is smaller than 1k", value.Show(each))
	}
	if err != nil {
		return fmt.Errorf("%w; want a number and a size, such as 4 8k", err)
	}
	s.LargeHeaders, s.LargeHeaderSize = n, bytes
	return nil
}

// logVariable are the variables that a line of the log may hold: nginx's, of the modules
// that are always there.
var logVariable = regexp.MustCompile(`^(args|arg_\w+|body_bytes_sent|bytes_sent|connection|connection_requests|connection_time|` +
	`content_length|content_type|cookie_\w+|host|hostname|http_\w+|https|is_args|msec|pid|pipe|proxy_host|proxy_port|` +
	`proxy_add_x_forwarded_for|proxy_protocol_addr|proxy_protocol_port|query_string|realip_remote_addr|realip_remote_port|` +
	`remote_addr|remote_port|remote_user|request|request_body|request_completion|request_id|request_length|request_method|` +
	`request_time|request_uri|scheme|sent_http_\w+|server_addr|server_name|server_port|server_protocol|ssl_cipher|ssl_protocol|` +
	`ssl_server_name|ssl_session_reused|ssl_curves|status|time_iso8601|time_local|upstream_addr|upstream_bytes_received|` +
	`upstream_bytes_sent|upstream_connect_time|upstream_header_time|upstream_http_\w+|upstream_response_length|` +
	`upstream_response_time|upstream_status|uri|` +
	// Those of ingress-nginx's that have a meaning here; render knows them.
	`req_id|proxy_upstream_name|best_http_host|pass_access_scheme)$`)

var anyVariable = regexp.MustCompile(`\$(?:\{(\w*)\}|(\w*))`)

// logFormat reads the line of the access log.
func logFormat(s *Settings, text string) error {
	text, err := value.Text(text)
	if err != nil {
		return err
	}
	for _, found := range anyVariable.FindAllStringSubmatch(text, -1) {
		if name := found[1] + found[2]; !logVariable.MatchString(name) {
			return fmt.Errorf("the variable %s is not one of nginx's for a log", value.Show(found[0]))
		}
	}
	s.LogFormat = text
	return nil
}
