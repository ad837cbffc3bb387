package ingress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pair is a certificate that signed itself, and its key, in PEM.
type pair struct{ cert, key []byte }

// certificate makes one whose common name is the first of the names.
func certificate(t *testing.T, ends time.Time, names ...string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: ends.AddDate(-1, 0, 0), NotAfter: ends,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

// valid makes a certificate that holds for a year.
func valid(t *testing.T, names ...string) pair {
	return certificate(t, time.Now().AddDate(0, 11, 0), names...)
}

// tlsSecret is a Secret with a pair.
func tlsSecret(name string, p pair) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: p.cert, corev1.TLSPrivateKeyKey: p.key},
	}
}

// presented is the certificate that the ingress shows to who asks for a name, "" for none,
// without regard to who signed it.
func (s *scene) presented(name string) (*x509.Certificate, error) {
	conn, err := s.outside.Dial(within(s.T, 5*time.Second), "tcp", net.JoinHostPort(s.address().String(), "443"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // it is looked at below
	if err := client.HandshakeContext(within(s.T, 5*time.Second)); err != nil {
		return nil, err
	}
	return client.ConnectionState().PeerCertificates[0], nil
}

// presents is whether the ingress shows the pair's certificate for a name.
func (s *scene) presents(name string, p pair) error {
	got, err := s.presented(name)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(p.cert)
	if string(got.Raw) != string(block.Bytes) {
		return fmt.Errorf("for %q there is the certificate of %q, %v, until %s", name, got.Subject.CommonName, got.DNSNames, got.NotAfter)
	}
	return nil
}
