package kit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxPEM bounds what is read of a secret's certificate or key, in bytes. The API's own
// bound of a secret is 1 MiB.
const maxPEM = 1 << 20

// Certificate reads the certificate and key of a TLS secret. The error says, in words for
// the secret's owner, what is wrong and how to mend it. A certificate that is expired, or
// not valid yet, is no error.
func Certificate(secret *corev1.Secret) (tls.Certificate, error) {
	cert, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	switch {
	case len(cert) == 0:
		return tls.Certificate{}, errors.New("it has no tls.crt; put the certificate, in PEM, there")
	case len(key) == 0:
		return tls.Certificate{}, errors.New("it has no tls.key; put the key of the certificate, in PEM, there")
	case len(cert) > maxPEM || len(key) > maxPEM:
		return tls.Certificate{}, fmt.Errorf("tls.crt or tls.key is larger than %d bytes", maxPEM)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		// crypto/tls says which of the two it is, and when they don't match; never their
		// contents.
		return tls.Certificate{}, fmt.Errorf("%w; tls.crt and tls.key must be PEM of one pair", err)
	}
	return pair, nil
}

// certificateVerdict is what was read of a secret.
type certificateVerdict struct {
	version             string
	invalid             string
	notBefore, notAfter time.Time
}

func judge(secret *corev1.Secret) certificateVerdict {
	v := certificateVerdict{version: secret.ResourceVersion}
	pair, err := Certificate(secret)
	if err != nil {
		v.invalid = err.Error()
		return v
	}
	if leaf := pair.Leaf; leaf != nil {
		v.notBefore, v.notAfter = leaf.NotBefore, leaf.NotAfter
	}
	return v
}

// problem is what is wrong with a certificate now; empty for nothing.
func (v certificateVerdict) problem(now time.Time) (reason, text string) {
	day := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case v.invalid != "":
		return ReasonSecretInvalid, "the default certificate is served: " + v.invalid
	case !v.notAfter.IsZero() && now.After(v.notAfter):
		return ReasonCertificateDates, "the certificate expired at " + day(v.notAfter) + ", clients refuse it; renew it"
	case now.Before(v.notBefore):
		return ReasonCertificateDates, "the certificate is not valid before " + day(v.notBefore) +
			", clients refuse it; renew it, or mend the clock"
	}
	return "", ""
}
