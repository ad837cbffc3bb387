package coredns

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestResolvers(t *testing.T) {
	self := []netip.Addr{netip.MustParseAddr(clusterDNS)}
	for _, c := range []struct{ name, first, second, want, why string }{
		{name: "one", first: "search a\nnameserver 192.0.2.53\noptions ndots:5\n", want: "192.0.2.53:53"},
		{name: "of both families, once each", first: "nameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver 192.0.2.53\n",
			want: "192.0.2.53:53 [2001:db8::53]:53"},
		{name: "a stub beside another", first: "nameserver 127.0.0.53\nnameserver 192.0.2.53\n", want: "192.0.2.53:53"},
		{name: "a stub, and what is behind it", first: "nameserver 127.0.0.53\n", second: "nameserver 192.0.2.54\n", want: "192.0.2.54:53"},
		{name: "a cache on this host, and nothing else", first: "nameserver 127.0.0.1\n", want: "127.0.0.1:53"},
		{name: "the cluster's own", first: "nameserver 10.43.0.10\n", why: "names none but the cluster's own"},
		{name: "link-local", first: "nameserver fe80::1%eth0\n", why: "names none but"},
		{name: "nothing", first: "# empty\n", why: "names none"},
		{name: "no addresses", first: "nameserver\nnameserver x\nnameserver 0.0.0.0\nnameserver 224.0.0.1\n", why: "names none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			r := resolvers{files: []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}, self: self}
			must(t, os.WriteFile(r.files[0], []byte(c.first), 0o600))
			if c.second != "" {
				must(t, os.WriteFile(r.files[1], []byte(c.second), 0o600))
			}
			upstreams, why := r.read()
			if got := joinUpstreams(upstreams); got != c.want || (c.why == "") != (why == "") || !strings.Contains(why, c.why) {
				t.Errorf("%q because %q, want %q because %q", got, why, c.want, c.why)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		upstreams, why := resolvers{files: []string{filepath.Join(t.TempDir(), "a")}}.read()
		if len(upstreams) > 0 || !strings.Contains(why, "no such file") {
			t.Errorf("%v because %q", upstreams, why)
		}
	})
}

func FuzzNameservers(f *testing.F) {
	f.Add("nameserver 192.0.2.53\nnameserver fe80::1%eth0\n# x\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, addr := range nameservers(text) {
			if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() {
				t.Errorf("%s from %q", addr, text)
			}
		}
	})
}
