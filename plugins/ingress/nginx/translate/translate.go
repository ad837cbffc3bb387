// Package translate makes a model of what nginx shall serve from Kubernetes' objects. It
// is pure: the same objects make the same model, whatever their order, and what is wrong
// with them comes back as problems, to be said as Events, never as an error of the whole.
//
// Its callers are the controller (which holds the caches and sends the Events) and tests.
package translate

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
)

// Input is what to translate. Its functions are asked within Translate alone, by one
// goroutine, and answer from caches; what they return is not changed.
type Input struct {
	// Ingresses are those of the class, in any order.
	Ingresses []*networkingv1.Ingress
	// Service is nil for one that doesn't exist.
	Service func(namespace, name string) *corev1.Service
	// EndpointSlices are those of a Service, in any order.
	EndpointSlices func(namespace, service string) []*discoveryv1.EndpointSlice
	// Secret is nil for one that doesn't exist. References says which are asked for.
	Secret func(namespace, name string) *corev1.Secret
	// Lost says that another Ingress has the path, and that it was told; nil for never. host
	// is "" for a rule without one.
	Lost func(ingress types.NamespacedName, host, path string, pathType networkingv1.PathType) bool
	// Settings are the global ones; see settings.Parse.
	Settings *settings.Settings
	// Certificate is what clients get that ask for no host with one of its own; the
	// controller makes one, or takes the operator's.
	Certificate *model.KeyPair
	// DefaultBackend answers what no rule takes; nil for 404.
	DefaultBackend *ServiceRef
	Options        Options
	// Cache, when set, makes the next translation quicker; see NewCache.
	Cache *Cache
}

// Options are the operator's choices that no ConfigMap may make.
type Options struct {
	// Snippets allows configuration-snippet and server-snippet, which can do what nginx's
	// user can: read every certificate's key, for one.
	Snippets bool
}

// ServiceRef names a port of a Service; Port is a name or a number.
type ServiceRef struct {
	types.NamespacedName
	Port string
}

// Output is the translation.
type Output struct {
	Config *model.Config
	// Problems are sorted by Ingress; each is worth a Warning Event.
	Problems []Problem
}

// Reason is an Event's reason.
type Reason string

// The reasons.
const (
	// BadAnnotation is a value that can't be used; the message says what was done instead.
	BadAnnotation Reason = "BadAnnotation"
	// Unsupported is an annotation that means something to ingress-nginx and nothing here.
	Unsupported Reason = "UnsupportedAnnotation"
	// SnippetsOff is a snippet while the operator didn't allow them.
	SnippetsOff Reason = "SnippetsDisabled"
	// BadRule is a rule that can't be served.
	BadRule Reason = "BadRule"
	// BackendMissing is a Service, or a port of one, that isn't there; the word of all ingresses.
	BackendMissing Reason = kit.ReasonBackendMissing
	// BadBackend is a backend that can't be used.
	BadBackend Reason = "BadBackend"
	// BadTLS is a certificate's secret that is missing, or can't be used.
	BadTLS Reason = "BadTLSSecret"
	// BadSecret is a secret of users that is missing, or can't be used.
	BadSecret Reason = "BadSecret"
	// DuplicatePath is a path that another Ingress has.
	DuplicatePath Reason = "DuplicatePath"
)

// Problem is one thing that is wrong with an Ingress.
type Problem struct {
	Ingress types.NamespacedName
	Reason  Reason
	// Message is a sentence with a hint how to mend it.
	Message string
}
