package translate

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
)

// Cache remembers certificates that were read, from one translation to the next: to read
// ten thousand takes seconds. It may be used by one translation at a time.
type Cache struct {
	mu    sync.Mutex
	pairs map[types.NamespacedName]cached
	// used are those that the running translation asked for.
	used map[types.NamespacedName]bool
}

type cached struct {
	version string
	pair    *model.KeyPair
	leaf    *x509.Certificate
	err     error
}

// NewCache makes an empty one.
func NewCache() *Cache {
	return &Cache{pairs: map[types.NamespacedName]cached{}, used: map[types.NamespacedName]bool{}}
}

// tidy forgets certificates that the last translation didn't ask for.
func (c *Cache) tidy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.pairs, func(name types.NamespacedName, _ cached) bool { return !c.used[name] })
	clear(c.used)
}

// tls gives a host the certificate that an Ingress names for it; the oldest Ingress wins.
func (b *builder) tls(s *server, ing *ingress) {
	host := hostOf(s)
	for _, entry := range ing.Spec.TLS {
		if host == "*" || !covers(entry.Hosts, host) {
			continue
		}
		s.HTTPS = true
		if entry.SecretName == "" || s.Certificate != nil {
			continue
		}
		name := types.NamespacedName{Namespace: ing.Namespace, Name: entry.SecretName}
		pair, leaf, err := b.pair(name)
		if err != nil {
			b.problem(ing, BadTLS, "host %s: %v; clients get the default certificate", host, err)
			continue
		}
		if err := leaf.VerifyHostname(strings.Replace(host, "*", "any", 1)); err != nil {
			b.problem(ing, BadTLS, "host %s: the certificate in secret %s is not for this host; clients get it all the same", host, name)
		}
		s.Certificate = pair
	}
}

// covers tells whether an entry of spec.tls is for a host; one without hosts is for all of
// the Ingress's.
func covers(hosts []string, host string) bool {
	if len(hosts) == 0 {
		return true
	}
	return slices.ContainsFunc(hosts, func(listed string) bool {
		listed = strings.ToLower(listed)
		if rest, wild := strings.CutPrefix(listed, "*."); wild && !strings.HasPrefix(host, "*.") {
			_, parent, _ := strings.Cut(host, ".")
			return parent == rest
		}
		return listed == host
	})
}

// pair reads a secret's certificate.
func (b *builder) pair(name types.NamespacedName) (*model.KeyPair, *x509.Certificate, error) {
	secret := b.in.Secret(name.Namespace, name.Name)
	if secret == nil {
		return nil, nil, fmt.Errorf("there is no secret %s", name)
	}
	version := string(secret.UID) + "/" + secret.ResourceVersion
	if b.in.Cache != nil && secret.ResourceVersion != "" {
		b.in.Cache.mu.Lock()
		defer b.in.Cache.mu.Unlock()
		b.in.Cache.used[name] = true
		if had, ok := b.in.Cache.pairs[name]; ok && had.version == version {
			return had.pair, had.leaf, had.err
		}
	}
	pair, leaf, err := readPair(secret)
	if err != nil {
		err = fmt.Errorf("the secret %s: %w", name, err)
	}
	if b.in.Cache != nil && secret.ResourceVersion != "" {
		b.in.Cache.pairs[name] = cached{version: version, pair: pair, leaf: leaf, err: err}
	}
	return pair, leaf, err
}

// maxPEM bounds a certificate with its chain, in bytes.
const maxPEM = 256 << 10

func readPair(secret *corev1.Secret) (*model.KeyPair, *x509.Certificate, error) {
	cert, key := secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]
	switch {
	case len(cert) == 0:
		return nil, nil, errors.New(`it has no key "tls.crt"`)
	case len(key) == 0:
		return nil, nil, errors.New(`it has no key "tls.key"`)
	case len(cert) > maxPEM || len(key) > maxPEM:
		return nil, nil, fmt.Errorf("more than %d bytes of certificates or keys", maxPEM)
	}
	pair, err := NewKeyPair(cert, key)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(pair.Cert)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("the certificate: %w", err)
	}
	return pair, leaf, nil
}
