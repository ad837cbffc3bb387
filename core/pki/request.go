package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// minRSABits is the smallest RSA key that a request may bring (NIST SP 800-57: 112 bits of
// strength until 2030).
const minRSABits = 2048

// maxRSABits bounds the work of checking a stranger's request.
const maxRSABits = 8192

// NewRequest makes a key and a certificate request for it, both in PEM. The request carries
// the key and nothing else: the authority decides on the names.
func NewRequest() (requestPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("create certificate request: %w", err)
	}
	return encodePEM(blockRequest, der), keyPEM, nil
}

// RequestedKey returns the public key of a certificate request in PEM, after it has checked
// that the sender holds the private half and that the key is strong enough: ECDSA on P-256,
// P-384 or P-521, Ed25519, or RSA with 2048 to 8192 bits. Names and extensions that the
// request may ask for are not looked at.
func RequestedKey(requestPEM []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(requestPEM)
	if block == nil || block.Type != blockRequest {
		return nil, errors.New("certificate request is not in PEM")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("certificate request is followed by something else")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	if err := checkKey(request.PublicKey); err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	return request.PublicKey, nil
}

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("certificate request has a key on curve %s: use P-256", key.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("certificate request has an RSA key of %d bits: use %d to %d", bits, minRSABits, maxRSABits)
		}
		return nil
	default:
		return fmt.Errorf("certificate request has a key of type %T: use ECDSA P-256", key)
	}
}
