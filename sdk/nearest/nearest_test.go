package nearest_test

import (
	"testing"

	"github.com/k3m-io/k3m/sdk/nearest"
)

func TestTo(t *testing.T) {
	kinds := []string{"runtime", "cni", "network-policy", "dns", "ingress", "servicelb"}
	for _, c := range []struct{ name, word, want string }{
		{"a letter too few", "ingres", "ingress"},
		{"a letter too many", "runntime", "runtime"},
		{"a wrong letter in a short word", "cnx", "cni"},
		{"neighbours swapped", "dsn", "dns"},
		{"capitals count for nothing", "ServiceLB", "servicelb"},
		{"two of three letters wrong", "cab", ""},
		{"nothing like it", "loadbalancer", ""},
		{"an empty word", "", ""},
		{"the word itself", "dns", "dns"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := nearest.To(c.word, kinds); got != c.want {
				t.Errorf("To(%q) = %q, want %q", c.word, got, c.want)
			}
		})
	}
}
