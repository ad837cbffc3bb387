package traefik

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/config/static"
	"github.com/traefik/traefik/v2/pkg/log"
	"github.com/traefik/traefik/v2/pkg/provider/acme"
	"github.com/traefik/traefik/v2/pkg/provider/aggregator"
	"github.com/traefik/traefik/v2/pkg/safe"
	traefiktls "github.com/traefik/traefik/v2/pkg/tls"
	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

// storage is the file, in the component's state directory, that holds ACME accounts and certificates. Traefik makes it
// with mode 0600, and takes no other.
const storage = "acme.json"

// authorities is the file, in the component's state directory, with the certificates that ACME servers may be signed by.
const authorities = "acme-ca.pem"

// checkAuthorities tells what is wrong with a resolver's caCertificates.
func checkAuthorities(text string) error {
	for rest := bytes.TrimSpace([]byte(text)); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return errors.New("want certificates in PEM, and nothing else")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("a certificate can't be read: %w", err)
		}
	}
	return nil
}

// trustAuthorities makes Traefik's ACME client believe the resolvers' caCertificates. That reads them from files that the
// process's environment names, for all resolvers at once.
func trustAuthorities(cfg config, stateDir string) error {
	var all []byte
	for _, name := range slices.Sorted(maps.Keys(cfg.ACME)) {
		if text := strings.TrimSpace(cfg.ACME[name].CACertificates); text != "" {
			all = append(append(all, text...), '\n')
		}
	}
	if len(all) == 0 {
		return nil
	}
	path := filepath.Join(stateDir, authorities)
	if err := os.WriteFile(path, all, 0o600); err != nil {
		return fmt.Errorf("keep the caCertificates of ACME resolvers: %w", err)
	}
	for key, value := range map[string]string{"LEGO_CA_CERTIFICATES": path, "LEGO_CA_SYSTEM_CERT_POOL": "true"} {
		if err := os.Setenv(key, value); err != nil {
			return fmt.Errorf("use the caCertificates of ACME resolvers: %w", err)
		}
	}
	return nil
}

// keepResolversIn sets where resolvers keep what they get.
func keepResolversIn(s *static.Configuration, stateDir string) {
	for _, r := range s.CertificatesResolvers {
		r.ACME.Storage = filepath.Join(stateDir, storage)
	}
}

// challenges are how names are proven.
type challenges struct {
	http *acme.ChallengeHTTP
	tls  *acme.ChallengeTLSALPN
}

// addResolvers makes Traefik's ACME providers.
func addResolvers(s *static.Configuration, providers *aggregator.ProviderAggregator, manager *traefiktls.Manager,
	c challenges, pool *safe.Pool) ([]*acme.Provider, error) {
	if len(s.CertificatesResolvers) == 0 {
		return nil, nil
	}
	var all []*acme.Provider
	var store *acme.LocalStore
	for name, r := range s.CertificatesResolvers {
		if store == nil {
			store = acme.NewLocalStore(r.ACME.Storage, pool)
		}
		p := &acme.Provider{Configuration: r.ACME, Store: store, ResolverName: name, HTTPChallengeProvider: c.http, TLSChallengeProvider: c.tls}
		if err := providers.AddProvider(p); err != nil {
			return nil, fmt.Errorf("start the ACME resolver %s: %w", name, err)
		}
		p.SetTLSManager(manager)
		p.SetConfigListenerChan(make(chan dynamic.Configuration))
		all = append(all, p)
	}
	return all, nil
}

// httpChallengeHandler answers HTTP challenges, if a resolver makes any.
func httpChallengeHandler(resolvers []*acme.Provider, c challenges) http.Handler {
	if slices.ContainsFunc(resolvers, func(p *acme.Provider) bool { return p.HTTPChallenge != nil }) {
		return c.http
	}
	return nil
}

// unknownResolvers tells of routers that name a resolver which is not configured.
func unknownResolvers(resolvers []*acme.Provider) func(dynamic.Configuration) {
	known := map[string]bool{"": true}
	for _, p := range resolvers {
		known[p.ResolverName] = true
	}
	return func(c dynamic.Configuration) {
		for name, r := range c.HTTP.Routers {
			if r.TLS != nil && !known[r.TLS.CertResolver] {
				log.WithoutContext().Errorf("router %s names the certificate resolver %s, which is not under components.%s.acme", name, r.TLS.CertResolver, id)
			}
		}
	}
}

// variable is the name of an environment variable as DNS providers have them.
var variable = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,99}$`)

// useCredentials puts the contents of the secrets that DNS challenges name into the process's environment, which is where
// the DNS providers' libraries read them. It must be called before anything else runs.
func useCredentials(ctx context.Context, c *kit.Clients, cfg config) error {
	for name, r := range cfg.ACME {
		if r.CredentialsSecret == "" {
			continue
		}
		// The component may list secrets, which gets one too, but not by its name.
		namespace, secret := secretName(r.CredentialsSecret)
		var found corev1.SecretList
		err := c.Core.Get().Namespace(namespace).Resource("secrets").Param("fieldSelector", "metadata.name="+secret).Do(ctx).Into(&found)
		if err != nil {
			return fmt.Errorf("read the credentials of ACME resolver %s: %w", name, err)
		}
		if len(found.Items) == 0 {
			return fmt.Errorf("read the credentials of ACME resolver %s: secret %s does not exist; make it: kubectl -n %s create secret generic %s --from-literal=VARIABLE=…",
				name, r.CredentialsSecret, namespace, secret)
		}
		for key, value := range found.Items[0].Data {
			if !variable.MatchString(key) {
				return fmt.Errorf("read the credentials of ACME resolver %s: the key %.60q of secret %s is not the name of an environment variable in capitals", name, key, r.CredentialsSecret)
			}
			if err := os.Setenv(key, string(value)); err != nil {
				return fmt.Errorf("use the credentials of ACME resolver %s: the value of %s: %w", name, key, err)
			}
		}
	}
	return nil
}
