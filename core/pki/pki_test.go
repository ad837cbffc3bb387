package pki_test

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/k3m-io/k3m/core/pki"
)

// fresh makes authorities in a new directory.
func fresh(t *testing.T) (*pki.PKI, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	p, err := pki.Ensure(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	return p, dir
}

func TestEnsureMakesThenLoads(t *testing.T) {
	made, dir := fresh(t)
	loaded, err := pki.Ensure(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made.Server.PEM, loaded.Server.PEM) || !bytes.Equal(made.Client.PEM, loaded.Client.PEM) {
		t.Error("a second start has other authorities")
	}
	if bytes.Equal(made.Server.PEM, made.Client.PEM) {
		t.Error("server and client authority are the same")
	}
	if life := time.Until(made.Server.Cert.NotAfter); life < pki.AuthorityValidity-time.Hour {
		t.Errorf("the server authority lives for %v", life)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestEnsureKeepsKeysPrivate(t *testing.T) {
	_, dir := fresh(t)
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil || len(keys) != 4 {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	for _, key := range keys {
		if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", key, info.Mode(), err)
		}
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v; want 0700", dir, info.Mode())
	}
}

// A directory that the operator made, empty, is filled.
func TestEnsureFillsAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := pki.Ensure(dir, false); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil         func(t *testing.T, dir string)
		clusterExists bool
		want          []string
	}{
		"everything lost": {
			spoil:         func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) },
			clusterExists: true,
			want:          []string{"server-ca.crt", "the cluster exists", "restore it from a backup"},
		},
		"a key lost": {
			spoil:         remove("client-ca.key"),
			clusterExists: true,
			want:          []string{"client-ca.key", "restore it from a backup"},
		},
		"a certificate lost before there is a cluster": {
			spoil: remove("client-ca.crt"),
			want:  []string{"client-ca.crt missing while", "bring all of them"},
		},
		"an empty certificate": {
			spoil: write("server-ca.crt", ""),
			want:  []string{"server-ca.crt", "holds no certificate in PEM", "restore the file"},
		},
		"a truncated certificate": {
			spoil: truncate("server-ca.crt", 200),
			want:  []string{"server-ca.crt", "holds no certificate in PEM"},
		},
		"rubbish in PEM": {
			spoil: write("request-header-ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
			want:  []string{"request-header-ca.crt", "restore the file"},
		},
		"a truncated key": {
			spoil: truncate("client-ca.key", 100),
			want:  []string{"client-ca.key", "holds no private key in PEM"},
		},
		"another authority's key": {
			spoil: copyFile("server-ca.key", "client-ca.key"),
			want:  []string{"client-ca.key is not the key of", "client-ca.crt", "same backup"},
		},
		"a key in place of a certificate": {
			spoil: copyFile("server-ca.key", "server-ca.crt"),
			want:  []string{"server-ca.crt", "holds no certificate"},
		},
		"another service account key": {
			spoil: copyFile("server-ca.key", "service-account.key"),
			want:  []string{"service-account.pub is not the public half of", "service-account.key"},
		},
		"a service account key that isn't one": {
			spoil: write("service-account.pub", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
			want:  []string{"service-account.pub", "restore the file"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, dir := fresh(t)
			c.spoil(t, dir)
			before := listing(t, dir)
			_, err := pki.Ensure(dir, c.clusterExists)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if after := listing(t, dir); after != before {
				t.Errorf("files changed:\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

func TestEnsureLeavesOtherFilesAlone(t *testing.T) {
	dir := t.TempDir()
	write("my-notes", "x")(t, dir)
	if _, err := pki.Ensure(dir, false); err == nil || !strings.Contains(err.Error(), "holds other files") {
		t.Errorf("error %v", err)
	}
	if got := listing(t, dir); !strings.HasPrefix(got, "my-notes:") || strings.Count(got, ":") != 1 {
		t.Errorf("files %s", got)
	}
}

// A leaf in the place of an authority signs nothing.
func TestEnsureRefusesALeafAsAuthority(t *testing.T) {
	p, dir := fresh(t)
	certPEM, keyPEM, err := p.Client.Issue(pki.Client("somebody"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "client-ca.crt"), certPEM, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "client-ca.key"), keyPEM, 0o600))
	if _, err := pki.Ensure(dir, true); err == nil || !strings.Contains(err.Error(), "is not a certificate authority") {
		t.Errorf("error %v", err)
	}
}

func TestIssuedClientCertificate(t *testing.T) {
	p, _ := fresh(t)
	certPEM, _, err := p.Client.Issue(pki.Client("system:node:a", "system:nodes"))
	must(t, err)
	cert, err := pki.ParseCertificate(certPEM)
	must(t, err)
	if cert.Subject.CommonName != "system:node:a" || cert.Subject.Organization[0] != "system:nodes" {
		t.Errorf("subject %v", cert.Subject)
	}
	client := x509.VerifyOptions{Roots: p.Client.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := cert.Verify(client); err != nil {
		t.Errorf("the client authority doesn't know it: %v", err)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: p.Client.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("it is good for a server too")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: p.Server.Pool(), KeyUsages: client.KeyUsages}); err == nil {
		t.Error("the server authority knows it")
	}
}

// listing is what a directory holds, with the files' hashes.
func listing(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	var b strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		fmt.Fprintf(&b, "%s:%.8s ", filepath.Base(file), pki.Hash(data))
	}
	return b.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, name))) }
}

func write(name, content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
}

func truncate(name string, size int64) func(*testing.T, string) {
	return func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, name), size)) }
}

func copyFile(from, to string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		data, err := os.ReadFile(filepath.Join(dir, from))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, to), data, 0o600))
	}
}
