package supervisor

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/token"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// requestTimeout bounds a request, with the wait for an API server that is starting. It is
// shorter than the agents' own 15 s, so that they read the reason.
const requestTimeout = 12 * time.Second

// Options are what the supervisor needs.
type Options struct {
	// PKI holds the authorities that sign.
	PKI *pki.PKI
	// Token is the secret of the node token.
	Token string
	// Client is a client of the API that may read and write Secrets of kube-system, and list
	// nodes.
	Client *rest.Config
	// Component says which groups the certificate of a component on a node has, and whether
	// it may have one.
	Component func(id, node string) (groups []string, ok bool)
	// Services says which Services ("<namespace>/<name>") a component on a node serves with
	// TLS, and whether it may have a certificate for them. Nil: none has.
	Services func(id, node string) (services []string, ok bool)
	// NodeName is the name of this server's own node, which joins from this machine, and API
	// are the names that the API's certificate has. No other node gets a certificate with
	// one of those.
	NodeName string
	API      pki.SANs
	// Local is the address at which this machine reaches the API. Nobody else's connection comes
	// from there: it is the machine's own, if it isn't a loopback address.
	Local netip.Addr
	// Cluster is what nodes are told when they join.
	Cluster wire.ClusterFacts
}

// Supervisor answers nodes. It is safe for concurrent use.
type Supervisor struct {
	opts      Options
	tokenHash [sha256.Size]byte
	client    kubernetes.Interface
	passwords *passwords
	requests  *rate.Limiter
	peers     *peers
	guesses   *peers
	routes    *http.ServeMux
}

// New returns a supervisor. It makes no request.
func New(opts Options) (*Supervisor, error) {
	if opts.Token == "" || opts.PKI == nil || opts.Client == nil || opts.Component == nil {
		return nil, errors.New("make supervisor: an option is missing")
	}
	client, err := kubernetes.NewForConfig(opts.Client)
	if err != nil {
		return nil, fmt.Errorf("make supervisor: %w", err)
	}
	s := &Supervisor{
		opts:      opts,
		tokenHash: sha256.Sum256([]byte(opts.Token)),
		client:    client,
		passwords: &passwords{client: client},
		requests:  rate.NewLimiter(requestsPerSecond, requestBurst),
		peers:     newPeers(peerRequestsPerSecond, peerRequestBurst),
		guesses:   newPeers(guessesPerSecond, guessBurst),
		routes:    http.NewServeMux(),
	}
	s.routes.HandleFunc("GET "+wire.CACertsPath, s.caCerts)
	s.routes.Handle("POST "+wire.JoinPath, answer(s.join))
	s.routes.Handle("POST "+wire.ComponentPath, answer(s.component))
	s.routes.Handle("POST "+wire.ComponentServingPath, answer(s.componentServing))
	s.routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, refuse(http.StatusNotFound, "the supervisor has no %s %s: are agent and server of the same k3m version?", r.Method, r.URL.Path))
	})
	return s, nil
}

const pathPrefix = "/v1-k3m/"

// Wrap returns a handler that answers nodes and passes everything else on to api.
func (s *Supervisor) Wrap(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, pathPrefix) {
			api.ServeHTTP(w, r)
			return
		}
		s.ServeHTTP(w, r)
	})
}

// ServeHTTP answers a node.
func (s *Supervisor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			klog.ErrorS(nil, "supervisor panicked", "path", r.URL.Path, "value", p, "stack", string(debug.Stack()))
			writeError(w, refuse(http.StatusInternalServerError, "the server failed on this request; its log says how"))
		}
	}()
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	r.Body = http.MaxBytesReader(w, r.Body, wire.MaxBody)
	// A body that comes a byte at a time ends with the request.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestTimeout)) // not with every HTTP/2 writer
	s.routes.ServeHTTP(w, r.WithContext(ctx))
}

func (s *Supervisor) caCerts(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(s.opts.PKI.Server.PEM)
}

// authorize checks the token, unless there were too many wrong ones from the same address.
func (s *Supervisor) authorize(r *http.Request) error {
	right, ok := s.guesses.guess(source(r))
	if !ok {
		return refuse(http.StatusTooManyRequests, "the server has seen too many wrong tokens from this address; try again later")
	}
	user, secret, ok := r.BasicAuth()
	given := sha256.Sum256([]byte(secret)) // equal lengths for the comparison
	if ok && user == token.User && subtle.ConstantTimeCompare(given[:], s.tokenHash[:]) == 1 {
		right()
		return nil
	}
	return refuse(http.StatusUnauthorized, "the token is not this cluster's: copy it from <data-dir>/server/node-token of a server")
}

// refusal is an answer that is not 2xx.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// answer makes a handler of a function that returns a JSON body or an error.
func answer(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := f(r)
		if err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, body)
	})
}

// writeError tells the other side why. Errors that are not refusals are the server's own.
func writeError(w http.ResponseWriter, err error) {
	var r *refusal
	if !errors.As(err, &r) {
		klog.ErrorS(err, "supervisor could not answer a node")
		r = &refusal{http.StatusServiceUnavailable, "the server can't answer now: " + err.Error()}
	}
	writeJSON(w, r.status, wire.Error{Message: r.message})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the other side is gone
}

// decode reads a JSON body of which all fields are known.
func decode(body io.Reader, into any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return refuse(http.StatusRequestEntityTooLarge, "the request is larger than %d bytes", tooLarge.Limit)
		}
		return refuse(http.StatusBadRequest, "the request can't be read: %v: are agent and server of the same k3m version?", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return refuse(http.StatusBadRequest, "the request is followed by something else")
	}
	return nil
}
