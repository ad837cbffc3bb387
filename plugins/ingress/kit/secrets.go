package kit

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Secrets are the secrets that Ingresses name. It watches those of type kubernetes.io/tls
// together, and any other by its name, as long as somebody wants it: a cluster's other
// secrets never reach the process's memory.
type Secrets struct {
	changed func(types.NamespacedName)
	tls     *Watch
	others  *Named
}

// NewSecrets makes it; Run watches. changed is called after each change of a secret and
// must be quick.
func NewSecrets(c *Clients, changed func(types.NamespacedName)) (*Secrets, error) {
	s := &Secrets{changed: changed}
	s.others = NewNamed(c.Core, "secrets", &corev1.Secret{}, reduceSecret, s.notice)
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
	s.tls.Run(stop)
	s.others.Close()
}

// Synced waits until the TLS secrets were read once, or stop is closed: then it is false.
func (s *Secrets) Synced(stop <-chan struct{}) bool { return Watches{s.tls}.Synced(stop) }

// Want says which secrets are of interest from now on, and waits until they were read, for
// a time at most.
func (s *Secrets) Want(names map[types.NamespacedName]bool, atMost time.Duration) error {
	others := map[types.NamespacedName]bool{}
	for name := range names {
		if Stored(s.tls, name) == nil {
			others[name] = true
		}
	}
	if err := s.others.Want(others); err != nil {
		return err
	}
	s.others.Synced(atMost)
	return nil
}

// Secret is a secret that is wanted, or one of type kubernetes.io/tls; nil if there is none.
func (s *Secrets) Secret(namespace, name string) *corev1.Secret {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	obj := Stored(s.tls, key)
	if obj == nil {
		obj = s.others.Object(key)
	}
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return nil
	}
	return secret
}
