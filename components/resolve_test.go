package components

import (
	"errors"
	"strings"
	"testing"
)

func TestResolveID(t *testing.T) {
	among := []string{"runtime.containerd", "dns.coredns", "ingress.traefik", "ingress.nginx"}
	for word, want := range map[string]string{
		"dns.coredns": "dns.coredns", "dns=coredns": "dns.coredns", "coredns": "dns.coredns", "dns": "dns.coredns",
		"nginx": "ingress.nginx", "ingress": "! ambiguous; write one of ingress.traefik, ingress.nginx",
		"cordns": `! did you mean "coredns"?`, "": "! there are runtime.containerd",
		"servicelb": "! nothing of kind servicelb is installed",
	} {
		id, err := ResolveID(word, among)
		says, refused := strings.CutPrefix(want, "! ")
		var mistake *SelectionError
		switch {
		case !refused && (err != nil || id != want):
			t.Errorf("%q is %q, %v; want %s", word, id, err, want)
		case refused && (!errors.As(err, &mistake) || !strings.Contains(err.Error(), says)):
			t.Errorf("%q: error %v does not say %q", word, err, says)
		}
	}
}
