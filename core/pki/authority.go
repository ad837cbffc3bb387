package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"
)

// How long certificates are valid, and from when on before its end a leaf is renewed.
const (
	AuthorityValidity = 10 * 365 * 24 * time.Hour
	LeafValidity      = 365 * 24 * time.Hour
	RenewBefore       = 90 * 24 * time.Hour
)

// backdate lets a node whose clock is a little behind accept a new certificate.
const backdate = 5 * time.Minute

// Authority is a certificate authority with its key. It is safe for concurrent use.
type Authority struct {
	// Cert is the authority's own certificate.
	Cert *x509.Certificate
	// PEM is Cert in PEM, exactly as in CertFile.
	PEM []byte
	// CertFile and KeyFile are where the authority was read from.
	CertFile, KeyFile string

	key crypto.Signer
}

// Leaf says what a certificate is to say.
type Leaf struct {
	// CommonName and Organizations are the user and the groups of a client certificate.
	CommonName    string
	Organizations []string
	// SANs are DNS names and IP addresses of a serving certificate.
	SANs SANs
	// Usage is what the certificate may be used for.
	Usage []x509.ExtKeyUsage
}

// Client describes a client certificate of a user and its groups.
func Client(user string, groups ...string) Leaf {
	return Leaf{CommonName: user, Organizations: groups, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

// Serving describes a serving certificate.
func Serving(name string, sans SANs) Leaf {
	return Leaf{CommonName: name, SANs: sans, Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
}

// Sign returns a certificate in PEM of someone's public key. The caller has decided that the
// holder of the key may have it; nothing but the key is theirs.
func (a *Authority) Sign(leaf Leaf, public crypto.PublicKey) ([]byte, error) {
	now := time.Now()
	notAfter := now.Add(LeafValidity)
	if notAfter.After(a.Cert.NotAfter) {
		notAfter = a.Cert.NotAfter // a leaf that outlives its authority would only look valid
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, fmt.Errorf("sign certificate %q: %w", leaf.CommonName, err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: leaf.CommonName, Organization: leaf.Organizations},
		NotBefore:             now.Add(-backdate),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           leaf.Usage,
		BasicConstraintsValid: true,
		DNSNames:              leaf.SANs.DNSNames,
		IPAddresses:           leaf.SANs.netIPs(),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %q: %w", leaf.CommonName, err)
	}
	return encodePEM(blockCertificate, der), nil
}

// Issue makes a key and its certificate, both in PEM.
func (a *Authority) Issue(leaf Leaf) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	certPEM, err = a.Sign(leaf, key.Public())
	if err != nil {
		return nil, nil, err
	}
	return certPEM, keyPEM, nil
}

// Pool returns a pool that trusts this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Hash is the hexadecimal SHA-256 of the authority's PEM file. Join tokens carry it, so that
// a node knows the server before it says anything to it.
func (a *Authority) Hash() string {
	return Hash(a.PEM)
}

// Hash is the hexadecimal SHA-256 of an authority's PEM file.
func Hash(pem []byte) string {
	sum := sha256.Sum256(pem)
	return hex.EncodeToString(sum[:])
}

// newAuthority makes a self-signed authority, both parts in PEM.
func newAuthority(name string) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		// The time makes the subjects of two clusters differ, so that a verifier which is
		// given both can tell which one it wants.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("k3m-%s@%d", name, now.Unix())},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(AuthorityValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	return encodePEM(blockCertificate, der), keyPEM, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return key, encodePEM(blockECKey, der), nil
}

func serialNumber() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}
