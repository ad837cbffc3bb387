package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/token"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// How long the agent waits for a server: a request may take requestTimeout; after one that got
// no answer the next follows after firstRetry, then twice as long each time, up to maxRetry.
// There is no end to it: a node that boots before its server waits for it.
const (
	requestTimeout = 15 * time.Second
	firstRetry     = 100 * time.Millisecond
	maxRetry       = 5 * time.Second
	// complainEvery bounds how often a waiting agent says what it waits for.
	complainEvery = 15 * time.Second
)

// RefusedError is a supervisor's final answer: asking again gives the same.
type RefusedError struct {
	// Status is the HTTP status, 401 for a wrong token.
	Status int
	// Message is the server's sentence.
	Message string
}

func (e *RefusedError) Error() string { return "server refused: " + e.Message }

// ErrWrongCA means that the server which answered is not the one of the token.
var ErrWrongCA = errors.New("the server's certificate authority is not the one that the token names: use the token of this cluster, or look for who answers in its place")

// join gets this node's certificates. It waits for the server as long as ctx lives, and gives
// up at once when the answer is no.
func (a *Agent) join(ctx context.Context) (*identity, error) {
	password, err := nodePassword(a.opts.path("node-password"))
	if err != nil {
		return nil, err
	}
	req := wire.JoinRequest{NodeName: a.opts.NodeName, NodePassword: password}
	for _, ip := range slices.Concat(a.opts.NodeIPs, a.opts.ExternalIPs) {
		req.NodeIPs = append(req.NodeIPs, ip.String())
	}
	var k keys
	for _, pair := range []struct {
		csr *string
		key *[]byte
	}{{&req.KubeletClientCSR, &k.kubeletClient}, {&req.KubeletServingCSR, &k.kubeletServing}, {&req.KubeProxyCSR, &k.proxy}} {
		csr, key, err := pki.NewRequest()
		if err != nil {
			return nil, fmt.Errorf("make the node's keys: %w", err)
		}
		*pair.csr, *pair.key = string(csr), key
	}
	if a.opts.ServerUp != nil {
		if err := wait(ctx, a.opts.ServerUp); err != nil {
			return nil, err
		}
	}
	tok, err := a.token()
	if err != nil {
		return nil, err
	}
	var ca []byte
	var resp wire.JoinResponse
	err = a.retry(ctx, func() error {
		var err error
		if ca, err = fetchCA(ctx, a.opts.ServerURL, tok.CAHash); err != nil {
			return err
		}
		client, err := verifiedClient(ca, nil)
		if err != nil {
			return err
		}
		defer client.CloseIdleConnections()
		return post(ctx, client, a.opts.ServerURL+wire.JoinPath, &tok, req, &resp)
	})
	if err != nil {
		return nil, err
	}
	return newIdentity(a.opts, ca, k, &resp)
}

func (a *Agent) token() (token.Token, error) {
	text := a.opts.Token
	if text == "" {
		data, err := os.ReadFile(a.opts.TokenFile)
		if err != nil {
			return token.Token{}, fmt.Errorf("read the token: %w", err)
		}
		text = string(data)
	}
	return token.Parse(text)
}

// retry calls do until it succeeds, is refused, or ctx ends.
func (a *Agent) retry(ctx context.Context, do func() error) error {
	var complained time.Time
	for delay := firstRetry; ; delay = min(2*delay, maxRetry) {
		err := do()
		if err == nil || ctx.Err() != nil || permanent(err) {
			return err
		}
		if now := time.Now(); now.Sub(complained) > complainEvery {
			a.opts.Logger.Info("waiting for the server", "server", a.opts.ServerURL, "error", err)
			complained = now
		}
		// Jitter keeps the nodes of a cluster that lost its server from coming back as one.
		timer := time.NewTimer(delay/2 + rand.N(delay/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func permanent(err error) bool {
	var refused *RefusedError
	return errors.Is(err, ErrWrongCA) || errors.As(err, &refused)
}

// fetchCA asks whoever answers for the server CA, and believes it only if its hash is the
// token's.
func fetchCA(ctx context.Context, server, hash string) ([]byte, error) {
	// Nothing is sent, and what comes is checked against the token's hash.
	client := newClient(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true})
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+wire.CACertsPath, nil)
	if err != nil {
		return nil, err
	}
	ca, err := roundTrip(client, req)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(ca)
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(hash)) != 1 {
		return nil, ErrWrongCA
	}
	return ca, nil
}

// verifiedClient talks to servers of the CA, with a client certificate if one is given.
func verifiedClient(ca []byte, cert *tls.Certificate) (*http.Client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, &RefusedError{http.StatusOK, "its authority holds no certificate"}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return newClient(config), nil
}

func newClient(config *tls.Config) *http.Client {
	return &http.Client{
		// A server that is starting accepts connections and lets them wait in the handshake. No
		// proxy: a server is on the cluster's own network.
		Transport:     &http.Transport{TLSClientConfig: config, TLSHandshakeTimeout: requestTimeout},
		Timeout:       requestTimeout,
		CheckRedirect: noRedirect,
	}
}

// noRedirect: a supervisor never redirects, and the token must not follow anybody elsewhere.
func noRedirect(*http.Request, []*http.Request) error {
	return http.ErrUseLastResponse
}

// post sends in as JSON and reads the answer into out; tok, if not nil, authenticates.
func post(ctx context.Context, client *http.Client, url string, tok *token.Token, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if tok != nil {
		req.SetBasicAuth(tok.User, tok.Secret)
	}
	data, err := roundTrip(client, req)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, out); err != nil {
		return &RefusedError{http.StatusOK, fmt.Sprintf("its answer can't be read (%v): is %s a k3m server?", err, req.URL.Host)}
	}
	return nil
}

// roundTrip reads at most wire.MaxBody of a 200 answer. Answers that a later try could change
// (5xx, 408, 425, 429) are plain errors, others a *RefusedError.
func roundTrip(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, wire.MaxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the server's answer: %w", err)
	case len(data) > wire.MaxBody:
		return nil, &RefusedError{resp.StatusCode, fmt.Sprintf("its answer is longer than %d bytes: is %s a k3m server?", wire.MaxBody, req.URL.Host)}
	case resp.StatusCode == http.StatusOK:
		return data, nil
	}
	message := fmt.Sprintf("%s: is %s a k3m server?", resp.Status, req.URL.Host)
	var said wire.Error
	if json.Unmarshal(data, &said) == nil && said.Message != "" {
		message = said.Message
	}
	switch code := resp.StatusCode; {
	case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
		return nil, fmt.Errorf("server answers %d: %s", code, message)
	default:
		return nil, &RefusedError{code, message}
	}
}
