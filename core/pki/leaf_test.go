package pki

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var testLeaf = Serving("kube-apiserver", SANs{
	DNSNames: []string{"kubernetes", "localhost"},
	IPs:      []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fd00::1")},
})

func TestEnsureLeaf(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, p *PKI, leaf *Leaf)
		why    string // "" when the old certificate stays
	}{
		"nothing changed": {change: func(*testing.T, *PKI, *Leaf) {}},
		"the same names in another order, one twice": {change: func(_ *testing.T, _ *PKI, leaf *Leaf) {
			leaf.SANs.DNSNames = []string{"localhost", "kubernetes", "localhost"}
		}},
		"a name more":       {func(_ *testing.T, _ *PKI, leaf *Leaf) { leaf.SANs.DNSNames = append(leaf.SANs.DNSNames, "more") }, "names or uses changed"},
		"an address less":   {func(_ *testing.T, _ *PKI, leaf *Leaf) { leaf.SANs.IPs = leaf.SANs.IPs[:1] }, "names or uses changed"},
		"another user":      {func(_ *testing.T, _ *PKI, leaf *Leaf) { leaf.CommonName = "x" }, "names or uses changed"},
		"another group":     {func(_ *testing.T, _ *PKI, leaf *Leaf) { leaf.Organizations = []string{"x"} }, "names or uses changed"},
		"for clients":       {func(_ *testing.T, _ *PKI, leaf *Leaf) { leaf.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "names or uses changed"},
		"another authority": {func(_ *testing.T, p *PKI, _ *Leaf) { p.Server = p.Client }, "another authority signed it"},
		"a corrupt file": {func(t *testing.T, p *PKI, _ *Leaf) {
			check(t, os.WriteFile(filepath.Join(p.Dir, "leaf.crt"), []byte("x"), 0o600))
		}, "holds no certificate"},
		"a missing key":  {func(t *testing.T, p *PKI, _ *Leaf) { check(t, os.Remove(filepath.Join(p.Dir, "leaf.key"))) }, "no such file"},
		"a missing cert": {func(t *testing.T, p *PKI, _ *Leaf) { check(t, os.Remove(filepath.Join(p.Dir, "leaf.crt"))) }, "none yet"},
		"another's key": {func(t *testing.T, p *PKI, _ *Leaf) {
			check(t, os.Rename(p.Client.KeyFile, filepath.Join(p.Dir, "leaf.key")))
		}, "another certificate's"},
		"a corrupt key": {func(t *testing.T, p *PKI, _ *Leaf) {
			check(t, os.WriteFile(filepath.Join(p.Dir, "leaf.key"), nil, 0o600))
		}, "no private key"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Ensure(filepath.Join(t.TempDir(), "tls"), false)
			check(t, err)
			first, why, err := p.EnsureLeaf(p.Server, "leaf", testLeaf)
			check(t, err)
			if why != "there is none yet" {
				t.Errorf("first issued because %q", why)
			}
			leaf := testLeaf
			leaf.SANs.DNSNames = append([]string(nil), testLeaf.SANs.DNSNames...)
			c.change(t, p, &leaf)
			second, why, err := p.EnsureLeaf(p.Server, "leaf", leaf)
			check(t, err)
			if c.why == "" && why != "" || !strings.Contains(why, c.why) {
				t.Errorf("renewed because %q, want %q", why, c.why)
			}
			if same := bytes.Equal(first.CertPEM, second.CertPEM); same != (c.why == "") {
				t.Errorf("the same certificate: %v", same)
			}
			onDisk, err := os.ReadFile(second.KeyFile)
			if err != nil || !bytes.Equal(onDisk, second.KeyPEM) {
				t.Errorf("the key on disk is another: %v", err)
			}
		})
	}
}

func TestLeafIsRenewedBeforeItsEnd(t *testing.T) {
	p, err := Ensure(filepath.Join(t.TempDir(), "tls"), false)
	check(t, err)
	pair, _, err := p.EnsureLeaf(p.Server, "leaf", testLeaf)
	check(t, err)
	now := time.Now()
	for name, c := range map[string]struct {
		at   time.Time
		want string
	}{
		"new":                    {now, ""},
		"long before its end":    {now.Add(LeafValidity - RenewBefore - time.Hour), ""},
		"shortly before its end": {now.Add(LeafValidity - RenewBefore + time.Hour), "it ends on"},
		"after its end":          {now.Add(LeafValidity + time.Hour), "it ends on"},
		"before its start":       {now.Add(-24 * time.Hour), "it starts on"},
	} {
		err := p.Server.check(pair, testLeaf, c.at)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
