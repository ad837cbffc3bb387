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
	Password = "secret"
)

// Registry is a running registry. It serves until Close.
type Registry struct {
	// Host is its address and port, as it stands in the names of images.
	Host string
	// CA is the certificate that vouches for it, PEM.
	CA []byte

	server *http.Server
	inner  http.Handler

	mu       sync.Mutex
	requests []string
}

// Start serves on a listener whose address is an IP address.
func Start(ln net.Listener) (*Registry, error) {
	host, _, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		return nil, err
	}
	cert, ca, err := certificate(net.ParseIP(host))
	if err != nil {
		return nil, err
	}
	quiet := log.New(io.Discard, "", 0)
	r := &Registry{Host: ln.Addr().String(), CA: ca, inner: registry.New(registry.Logger(quiet))}
	r.server = &http.Server{Handler: r, ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}}
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
	if user != User || password != Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
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
func certificate(ip net.IP) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test registry"}, IPAddresses: []net.IP{ip},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), nil
}
