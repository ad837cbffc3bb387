package translate

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// NewKeyPair checks a certificate with its chain and its key, and writes them anew: nginx,
// which reads them with OpenSSL and fails as a whole, gets nothing that Go didn't read.
func NewKeyPair(cert, key []byte) (*model.KeyPair, error) {
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		return nil, fmt.Errorf("the certificate and its key: %w", err)
	}
	var chain bytes.Buffer
	for rest := cert; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		read, err := x509.ParseCertificate(block.Bytes)
		if err == nil {
			err = strong(read)
		}
		if err != nil {
			return nil, fmt.Errorf("the certificate's chain: %w", err)
		}
		if err := pem.Encode(&chain, &pem.Block{Type: block.Type, Bytes: block.Bytes}); err != nil {
			return nil, fmt.Errorf("the certificate's chain: %w", err)
		}
	}
	for rest := key; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("the key is not one in PEM")
		}
		switch block.Type {
		case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY":
			private := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
			return &model.KeyPair{ID: id("pair", chain.String(), string(private)), Cert: chain.Bytes(), Key: private}, nil
		}
	}
}

// strong tells whether OpenSSL takes a certificate at security level 2, the distributions'
// default: keys and digests of 112 bits and more.
func strong(cert *x509.Certificate) error {
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		return fmt.Errorf("an RSA key of %d bits is too short for OpenSSL, want 2048 at least", key.N.BitLen())
	}
	switch cert.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1:
		if !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			return fmt.Errorf("a signature by %s is too weak for OpenSSL", cert.SignatureAlgorithm)
		}
	}
	return nil
}
