package supervisor

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A password's Secret: <node>.node-password.k3m in kube-system.
const (
	passwordSuffix = ".node-password.k3m"
	passwordType   = corev1.SecretType("k3m.io/node-password")
	saltKey        = "salt"
	hashKey        = "hash"
)

// Agents make passwords of 128 random bits or more, which need no slow hash; a few rounds for
// those that a person chose.
const (
	hashRounds = 10_000
	saltBytes  = 16
)

// createInterval is how often the first password is tried again while the API server starts:
// kube-system itself is made then.
const createInterval = 20 * time.Millisecond

// passwords are the nodes' passwords, kept in the cluster.
type passwords struct{ client kubernetes.Interface }

// check compares the password of a node with the one that is kept, and keeps it if none is. It
// waits, as long as ctx lives, for an API server that is starting.
func (p *passwords) check(ctx context.Context, node, password string) error {
	name := node + passwordSuffix
	secrets := p.client.CoreV1().Secrets(metav1.NamespaceSystem)
	for {
		secret, err := secrets.Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return compare(secret, node, password)
		}
		if apierrors.IsNotFound(err) {
			if secret, err = newPassword(name, password); err != nil {
				return err
			}
			_, err = secrets.Create(ctx, secret, metav1.CreateOptions{})
			if err == nil {
				return nil
			}
			if apierrors.IsInvalid(err) {
				return refuse(http.StatusBadRequest, "%q is too long for a node's name", node)
			}
		}
		// AlreadyExists: two joins at once, the other was first. Others: not up yet.
		select {
		case <-time.After(createInterval):
		case <-ctx.Done():
			return fmt.Errorf("look up the password of node %s: %w", node, err)
		}
	}
}

func newPassword(name, password string) (*corev1.Secret, error) {
	salt := make([]byte, saltBytes)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	hash, err := hashPassword(salt, password)
	if err != nil {
		return nil, err
	}
	immutable := true
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceSystem},
		Type:       passwordType,
		Immutable:  &immutable,
		Data:       map[string][]byte{saltKey: salt, hashKey: hash},
	}, nil
}

func compare(secret *corev1.Secret, node, password string) error {
	hash, err := hashPassword(secret.Data[saltKey], password)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(hash, secret.Data[hashKey]) == 1 {
		return nil
	}
	return refuse(http.StatusForbidden, "node %s has joined with another password: choose another --node-name, or, if this is the same machine reinstalled, run: k3m kubectl -n %s delete secret %s, and delete the node",
		node, metav1.NamespaceSystem, secret.Name)
}

func hashPassword(salt []byte, password string) ([]byte, error) {
	return pbkdf2.Key(sha256.New, password, salt, hashRounds, sha256.Size)
}
