package traefik

import (
	"bytes"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

func TestMetricsThatDontFitAreLeftOut(t *testing.T) {
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(strings.NewReader("# TYPE traefik_small counter\ntraefik_small 1\n" +
		"# TYPE traefik_large counter\ntraefik_large{service=\"a\"} 1\ntraefik_large{service=\"b\"} 2\n# TYPE go_goroutines gauge\ngo_goroutines 3\n"))
	must(t, err)
	for name, c := range map[string]struct {
		room int
		want string
	}{"all fit": {1000, "traefik_large traefik_small"}, "the small one fits": {60, "traefik_small"}, "none fits": {10, ""}} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			must(t, writeFamilies(&b, families, c.room))
			got, err := parser.TextToMetricFamilies(&b)
			must(t, err)
			if keys := sorted(got); keys != c.want {
				t.Errorf("%s, want %s", keys, c.want)
			}
		})
	}
}

func sorted(families map[string]*dto.MetricFamily) string {
	var all []string
	for _, name := range []string{"go_goroutines", "traefik_large", "traefik_small"} {
		if families[name] != nil {
			all = append(all, name)
		}
	}
	return strings.Join(all, " ")
}
