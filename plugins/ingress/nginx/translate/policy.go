package translate

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// policy adds to an Ingress's policy what annotations say by other objects.
func (b *builder) policy(ing *ingress) {
	b.users(ing)
	b.limit(ing)
	b.errors(ing)
}

// users reads the secret of basic authentication; without it the Ingress is denied.
func (b *builder) users(ing *ingress) {
	auth := ing.said.BasicAuth
	if auth == nil {
		return
	}
	users, err := b.userFile(ing, auth)
	if err != nil {
		ing.said.Denied = "auth-secret"
		b.problem(ing, BadSecret, "annotation %sauth-secret: %v; the Ingress's paths answer 503 until it is right", annotations.Prefix, err)
		return
	}
	ing.policy.BasicAuth = &model.BasicAuth{Realm: auth.Realm, Users: users}
}

func (b *builder) userFile(ing *ingress, auth *annotations.BasicAuth) (*model.UserFile, error) {
	name := secretOf(ing.Namespace, auth.Secret)
	if name.Namespace != ing.Namespace {
		return nil, fmt.Errorf("the secret %s is of another namespace", name)
	}
	secret := b.in.Secret(name.Namespace, name.Name)
	if secret == nil {
		return nil, fmt.Errorf("there is no secret %s", name)
	}
	data, err := userLines(secret, auth.Map)
	if err != nil {
		return nil, fmt.Errorf("the secret %s: %w", name, err)
	}
	return &model.UserFile{ID: id("users", string(data)), Data: data}, nil
}

// secretOf reads "name" or "namespace/name".
func secretOf(namespace, text string) types.NamespacedName {
	if before, after, found := strings.Cut(text, "/"); found {
		return types.NamespacedName{Namespace: before, Name: after}
	}
	return types.NamespacedName{Namespace: namespace, Name: text}
}

// maxUsers bounds a file of users, in bytes: nginx reads it for each request.
const maxUsers = 1 << 20

// userLines makes a file as nginx reads it: a name, a colon, the password's hash.
func userLines(secret *corev1.Secret, byKey bool) ([]byte, error) {
	var text bytes.Buffer
	if byKey {
		for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
			fmt.Fprintf(&text, "%s:%s\n", name, bytes.TrimSpace(secret.Data[name]))
		}
	} else {
		text.Write(secret.Data["auth"])
	}
	if text.Len() > maxUsers {
		return nil, fmt.Errorf("%d bytes of users, want %d at most", text.Len(), maxUsers)
	}
	var out bytes.Buffer
	n := 0
	for line := range bytes.Lines(text.Bytes()) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, hash, found := bytes.Cut(line, []byte(":"))
		if _, err := value.Text(string(line)); err != nil || !found || len(name) == 0 || len(hash) == 0 {
			return nil, fmt.Errorf("line %d is not name:hash, as htpasswd writes it", n)
		}
		out.Write(line)
		out.WriteByte('\n')
	}
	if out.Len() == 0 && byKey {
		return nil, errors.New("it has no keys, and with auth-secret-type auth-map each key is a user")
	}
	if out.Len() == 0 {
		return nil, errors.New(`its key "auth" holds no line of htpasswd`)
	}
	return out.Bytes(), nil
}

// limit names the counters of an Ingress's limits.
func (b *builder) limit(ing *ingress) {
	said := ing.said.Limits
	use := func(kind string, limit model.Limit) *model.Limit {
		if said.Except != "" {
			// Parse checked it.
			limit.Except, _ = value.Prefixes(said.Except)
		}
		limit.Name = kind + "_" + id(ing.Namespace, ing.Name, said.Except)
		if b.limits[limit.Name] == nil {
			b.limits[limit.Name] = &limit
		}
		return b.limits[limit.Name]
	}
	if said.PerSecond > 0 {
		ing.policy.Requests = append(ing.policy.Requests,
			model.LimitUse{Limit: use("rps", model.Limit{PerSecond: said.PerSecond}), Burst: said.PerSecond * said.Burst})
	}
	if said.PerMinute > 0 {
		ing.policy.Requests = append(ing.policy.Requests,
			model.LimitUse{Limit: use("rpm", model.Limit{PerMinute: said.PerMinute}), Burst: said.PerMinute * said.Burst})
	}
	if said.Connections > 0 {
		ing.policy.Connections = append(ing.policy.Connections,
			model.LimitUse{Limit: use("connections", model.Limit{}), Count: said.Connections})
	}
}

// errors finds who answers for an Ingress's error codes: the Service of its annotation, or
// the component's default backend.
func (b *builder) errors(ing *ingress) {
	own := len(ing.policy.Errors) > 0
	if !own {
		ing.policy.Errors = b.in.Settings.Errors
	}
	if len(ing.policy.Errors) == 0 {
		return
	}
	if ing.said.DefaultBackend != "" {
		ing.policy.ErrorBackend = b.firstPort(ing, ing.Namespace, ing.said.DefaultBackend)
	} else if ref := b.in.DefaultBackend; ref != nil {
		ing.policy.ErrorBackend, _ = b.resolve(ref.Namespace, ref.Name, ref.Port, &annotations.Annotations{})
	}
	if ing.policy.ErrorBackend.Empty() {
		if own {
			b.problem(ing, BadAnnotation, "annotation %scustom-http-errors: there is no default backend with an endpoint to answer for them "+
				"(annotation default-backend, or the component's defaultBackend); errors stay as they are", annotations.Prefix)
		}
		ing.policy.Errors = nil
	}
}
