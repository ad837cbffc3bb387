package kit

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// maxNamed bounds the secrets that are watched by name, one request each.
const maxNamed = 1000

// Secrets are the secrets that Ingresses name. It watches those of type kubernetes.io/tls
// together, and any other by its name, as long as somebody wants it: a cluster's other
// secrets never reach the process's memory.
type Secrets struct {
	clients *Clients
	changed func(types.NamespacedName)
	tls     *Watch

	mu      sync.Mutex
	stop    <-chan struct{} // nil before Run, and then Want only waits for it
	named   map[types.NamespacedName]*namedSecret
	running sync.WaitGroup
}

type namedSecret struct {
	watch *Watch
	stop  chan struct{}
}

// NewSecrets makes it; Run watches. changed is called after each change of a secret and
// must be quick.
func NewSecrets(c *Clients, changed func(types.NamespacedName)) (*Secrets, error) {
	s := &Secrets{clients: c, changed: changed, named: map[types.NamespacedName]*namedSecret{}}
	var err error
	s.tls, err = NewWatch(c.Core, "secrets", "", fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS)),
		&corev1.Secret{}, reduceSecret, s.notice)
	return s, err
}

func reduceSecret(obj runtime.Object) runtime.Object {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return obj
	}
	kept := &corev1.Secret{ObjectMeta: Identity(&secret.ObjectMeta), Type: secret.Type, Data: secret.Data}
	if secret.Type == corev1.SecretTypeTLS {
		kept.Data = map[string][]byte{}
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, "ca.crt"} {
			if value, ok := secret.Data[key]; ok {
				kept.Data[key] = value
			}
		}
	}
	return kept
}

func (s *Secrets) notice(before, after any) {
	for _, obj := range []any{after, before} {
		if secret, ok := obj.(*corev1.Secret); ok {
			s.changed(types.NamespacedName{Namespace: secret.Namespace, Name: secret.Name})
			return
		}
	}
}

// Run watches until stop is closed.
func (s *Secrets) Run(stop <-chan struct{}) {
	s.mu.Lock()
	s.stop = stop
	for _, n := range s.named {
		s.start(n)
	}
	s.mu.Unlock()
	s.tls.Run(stop)
	s.mu.Lock()
	for name, n := range s.named {
		close(n.stop)
		delete(s.named, name)
	}
	s.mu.Unlock()
	s.running.Wait()
}

// Synced waits until the TLS secrets were read once, or stop is closed: then it is false.
func (s *Secrets) Synced(stop <-chan struct{}) bool {
	return cache.WaitForCacheSync(stop, s.tls.HasSynced)
}

// start starts one watch. The lock is held.
func (s *Secrets) start(n *namedSecret) {
	s.running.Go(func() { n.watch.Run(n.stop) })
}

// Want says which secrets are of interest. One that is not of type kubernetes.io/tls is
// there, if it exists, a moment later; changed tells. Beyond the first thousand such names,
// the others are taken for missing.
func (s *Secrets) Want(names map[types.NamespacedName]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.named {
		if !names[name] || s.fromTLS(name) != nil {
			close(n.stop)
			delete(s.named, name)
		}
	}
	if s.stop == nil {
		return nil
	}
	select {
	case <-s.stop:
		return nil
	default:
	}
	for name := range names {
		if s.named[name] != nil || s.fromTLS(name) != nil || len(s.named) >= maxNamed {
			continue
		}
		watch, err := NewWatch(s.clients.Core, "secrets", name.Namespace, fields.OneTermEqualSelector("metadata.name", name.Name),
			&corev1.Secret{}, reduceSecret, s.notice)
		if err != nil {
			return err
		}
		n := &namedSecret{watch: watch, stop: make(chan struct{})}
		s.named[name] = n
		s.start(n)
	}
	return nil
}

func (s *Secrets) fromTLS(name types.NamespacedName) *corev1.Secret {
	return stored(s.tls, name)
}

func stored(watch *Watch, name types.NamespacedName) *corev1.Secret {
	obj, found, err := watch.GetStore().GetByKey(name.String())
	if err != nil || !found {
		return nil
	}
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return nil
	}
	return secret
}

// Secret is a secret that was wanted, or one of type kubernetes.io/tls; nil if there is none.
func (s *Secrets) Secret(namespace, name string) *corev1.Secret {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	if secret := s.fromTLS(key); secret != nil {
		return secret
	}
	s.mu.Lock()
	n := s.named[key]
	s.mu.Unlock()
	if n == nil {
		return nil
	}
	return stored(n.watch, key)
}
