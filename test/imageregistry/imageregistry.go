// Package imageregistry is a registry of images for tests: with TLS, for one user, and with a
// record of what was asked of it. Push fills it.
package imageregistry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The user whom a registry lets in.
const (
	User     = "me"
	Password = "pa55-of-the-registry"
)

// RefreshToken is what a registry with Tokens gives access tokens for.
const RefreshToken = "refresh-secret"

// Options change whom a registry lets in.
type Options struct {
	// ClientCertificate wants one of the client: that of Registry.CA and Key.
	ClientCertificate bool
	// Tokens lets in who has got a token at /token, which wants RefreshToken.
	Tokens bool
}

// Registry is a running registry. It serves until Close.
type Registry struct {
	// Host is its address and port, as it stands in the names of images.
	Host string
	// CA is the certificate that vouches for it, PEM.
	CA []byte
	// Key is the private key of CA, PEM.
	Key []byte

	options Options
	server  *http.Server
	inner   http.Handler

	mu       sync.Mutex
	requests []string
}

// Start serves on a listener whose address is an IP address.
func Start(ln net.Listener, options Options) (*Registry, error) {
	host, _, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return nil, err
	}
	cert, ca, key, err := certificate(net.ParseIP(host))
	if err != nil {
		return nil, err
	}
	quiet := log.New(io.Discard, "", 0)
	r := &Registry{Host: ln.Addr().String(), CA: ca, Key: key, options: options, inner: registry.New(registry.Logger(quiet))}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if options.ClientCertificate {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(ca)
	}
	r.server = &http.Server{Handler: r, ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second, TLSConfig: config}
	go func() { _ = r.server.ServeTLS(ln, "", "") }() // ends with Close
	return r, nil
}

// Close ends it.
func (r *Registry) Close() { _ = r.server.Close() }

// ServeHTTP lets in the user, after having noted the request.
func (r *Registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	user, password, _ := request.BasicAuth()
	r.mu.Lock()
	r.requests = append(r.requests, strings.TrimSpace(user+" "+request.Method+" "+request.URL.Path))
	r.mu.Unlock()
	if r.options.Tokens {
		r.withTokens(w, request)
		return
	}
	if user != User || password != Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.inner.ServeHTTP(w, request)
}

// withTokens is the OAuth2 way: a token for each scope, which is asked for with a refresh
// token. A token is the name of what it is for.
func (r *Registry) withTokens(w http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/token" {
		if err := request.ParseForm(); err != nil || request.PostForm.Get("refresh_token") != RefreshToken {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token": %q, "expires_in": 3600}`, request.PostForm.Get("scope"))
		return
	}
	repository, _, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/v2/"), "/manifests/")
	repository, _, _ = strings.Cut(repository, "/blobs/")
	scope := "repository:" + repository + ":pull"
	if !strings.Contains(request.Header.Get("Authorization"), scope) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="test",scope=%q`, r.Host, scope))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.inner.ServeHTTP(w, request)
}

// Requests are those since the last call, one a line: "user GET /v2/…", without a user where
// none was given.
func (r *Registry) Requests() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := strings.Join(r.requests, "\n")
	r.requests = nil
	return all
}

// Push stores an image without asking for a user or noting it.
func (r *Registry) Push(ctx context.Context, repository, tag string, img v1.Image) error {
	return push(ctx, &http.Client{Transport: inProcess{r.inner}}, "https://"+r.Host+"/v2/"+repository, tag, img)
}

// certificate is a self-signed one.
func certificate(ip net.IP) (pair tls.Certificate, cert, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test registry"}, IPAddresses: []net.IP{ip},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, nil, nil, err
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	private = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, cert, private, nil
}
