package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/core/pki"
)

func requestOf(tb testing.TB, key crypto.Signer) []byte {
	tb.Helper()
	// Everything that a request may ask for, and must not get.
	template := &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "system:admin", Organization: []string{"system:masters"}},
		DNSNames:    []string{"kubernetes"},
		IPAddresses: []net.IP{{127, 0, 0, 1}},
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestRequestedKey(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	rsa2048, _ := rsa.GenerateKey(rand.Reader, 2048)
	good := requestOf(t, p256)

	block, _ := pem.Decode(good)
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	forgedPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged})

	for name, c := range map[string]struct {
		pem  []byte
		want string
	}{
		"P-256":            {good, ""},
		"Ed25519":          {requestOf(t, edwards), ""},
		"RSA of 2048 bits": {requestOf(t, rsa2048), ""},
		"P-224":            {requestOf(t, p224), "curve P-224"},
		"a forged one":     {forgedPEM, "certificate request"},
		"nothing":          {nil, "not in PEM"},
		"a certificate":    {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), "not in PEM"},
		"two of them":      {append(append([]byte(nil), good...), good...), "followed by something else"},
		"rubbish":          {[]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"), "read certificate request"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pki.RequestedKey(c.pem)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// What a request asks for has no part in the certificate.
func TestSignTakesTheKeyAlone(t *testing.T) {
	p, _ := fresh(t)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	public, err := pki.RequestedKey(requestOf(t, key))
	must(t, err)
	certPEM, err := p.Client.Sign(pki.Client("k3m:component:addon.x:node-1", "k3m:components"), public)
	must(t, err)
	cert, err := pki.ParseCertificate(certPEM)
	must(t, err)
	if cert.Subject.CommonName != "k3m:component:addon.x:node-1" || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != "k3m:components" {
		t.Errorf("subject %v", cert.Subject)
	}
	if len(cert.DNSNames) > 0 || len(cert.IPAddresses) > 0 || cert.IsCA {
		t.Errorf("names %v %v, authority %v", cert.DNSNames, cert.IPAddresses, cert.IsCA)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		t.Error("another key")
	}
}

func TestNewRequestIsAccepted(t *testing.T) {
	requestPEM, keyPEM, err := pki.NewRequest()
	must(t, err)
	if _, err := pki.RequestedKey(requestPEM); err != nil {
		t.Error(err)
	}
	if len(keyPEM) == 0 {
		t.Error("no key")
	}
}

func FuzzRequestedKey(f *testing.F) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.Add(requestOf(f, key))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := pki.RequestedKey(data); err == nil && key == nil {
			t.Error("no key and no error")
		}
	})
}

func FuzzParseCertificate(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if cert, err := pki.ParseCertificate(data); err == nil && cert == nil {
			t.Error("no certificate and no error")
		}
	})
}
