package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const (
	blockCertificate = "CERTIFICATE"
	blockECKey       = "EC PRIVATE KEY"
	blockPKCS8Key    = "PRIVATE KEY"
	blockPKCS1Key    = "RSA PRIVATE KEY"
	blockPublicKey   = "PUBLIC KEY"
	blockRequest     = "CERTIFICATE REQUEST"
)

const restoreHint = "restore the file from a backup"

func encodePEM(block string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
}

func encodePublicKey(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return encodePEM(blockPublicKey, der), nil
}

// loadAuthority reads both halves and checks that they belong together and may sign.
func loadAuthority(dir, name string) (*Authority, error) {
	a := &Authority{CertFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key")}
	var err error
	if a.PEM, err = os.ReadFile(a.CertFile); err != nil {
		return nil, err
	}
	if a.Cert, err = ParseCertificate(a.PEM); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", a.CertFile, err, restoreHint)
	}
	keyPEM, err := os.ReadFile(a.KeyFile)
	if err != nil {
		return nil, err
	}
	if a.key, err = parseKey(keyPEM); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", a.KeyFile, err, restoreHint)
	}
	if !samePublicKey(a.Cert.PublicKey, a.key.Public()) {
		return nil, fmt.Errorf("%s is not the key of %s: restore both files from the same backup", a.KeyFile, a.CertFile)
	}
	if !a.Cert.IsCA || a.Cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, fmt.Errorf("%s is not a certificate authority: %s", a.CertFile, restoreHint)
	}
	return a, nil
}

func checkServiceAccountKey(keyFile, publicFile string) error {
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", keyFile, err, restoreHint)
	}
	publicPEM, err := os.ReadFile(publicFile)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(publicPEM)
	if block == nil || block.Type != blockPublicKey {
		return fmt.Errorf("%s: holds no public key in PEM: %s", publicFile, restoreHint)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", publicFile, err, restoreHint)
	}
	if !samePublicKey(public, key.Public()) {
		return fmt.Errorf("%s is not the public half of %s: restore both files from the same backup", publicFile, keyFile)
	}
	return nil
}

// ParseCertificate reads the one certificate that PEM data must hold.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != blockCertificate {
		return nil, errors.New("holds no certificate in PEM")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("holds more than one certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("holds no private key in PEM")
	}
	var key any
	var err error
	switch block.Type {
	case blockECKey:
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case blockPKCS8Key:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case blockPKCS1Key:
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("holds a %q, not a private key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("holds a key that can't sign")
	}
	return signer, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}
