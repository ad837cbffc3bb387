package traefik

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/provider"
	upstream "github.com/traefik/traefik/v2/pkg/provider/kubernetes/ingress"
	"github.com/traefik/traefik/v2/pkg/tls"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

const (
	// providerName is that of Traefik's own provider of Ingresses, so that what refers to its routers and services
	// ("@kubernetes"), and what counts them, finds them.
	providerName = "kubernetes"
	// retryName is the middleware that sends a request which reached no server to another one: while pods are replaced,
	// one is gone before Traefik knows.
	retryName = "k3m-retry"
	retries   = 3
	// defaultName is the service of the default backend.
	defaultName = "default-backend"

	reasonAnnotation = "AnnotationInvalid"
	reasonBackend    = "BackendInvalid"
	reasonDefault    = "DuplicateDefaultBackend"
)

// translation turns Ingresses into Traefik's dynamic configuration.
type translation struct {
	service   func(namespace, name string) *corev1.Service
	endpoints func(namespace, name string) []*discoveryv1.EndpointSlice
	secret    func(namespace, name string) *corev1.Secret
	// lost are the claims that another Ingress has.
	lost map[kit.Loss]types.NamespacedName
	// defaultCertificate is "<namespace>/<name>" of a secret, or empty.
	defaultCertificate string
	externalNames      bool
	// domain is the cluster's.
	domain string

	conf               *dynamic.Configuration
	findings           []kit.Finding
	services, routers  names
	certificates       map[string]*tls.CertAndStores
	defaultBackend     *networkingv1.Ingress
	defaultHasNoRoutes bool
}

// run translates. The Ingresses may come in any order; the result is the same.
func (t *translation) run(ingresses []*networkingv1.Ingress) (*dynamic.Configuration, []kit.Finding) {
	t.conf = &dynamic.Configuration{
		HTTP: &dynamic.HTTPConfiguration{
			Routers:     map[string]*dynamic.Router{},
			Services:    map[string]*dynamic.Service{},
			Middlewares: map[string]*dynamic.Middleware{retryName: {Retry: &dynamic.Retry{Attempts: retries}}},
		},
	}
	t.services, t.routers = names{defaultName: ""}, names{"default-router": ""}
	t.certificates = map[string]*tls.CertAndStores{}
	ordered := slices.Clone(ingresses)
	slices.SortFunc(ordered, func(a, b *networkingv1.Ingress) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	for _, i := range ordered {
		t.ingress(i)
	}
	t.tls()
	return t.conf, t.findings
}

func (t *translation) find(i *networkingv1.Ingress, reason, format string, args ...any) {
	t.findings = append(t.findings, kit.Finding{Object: kit.Reference(i), Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func (t *translation) ingress(i *networkingv1.Ingress) {
	var settings upstream.RouterConfig
	err := decodeAnnotations(i.Annotations, &settings, "traefik.router.")
	matcher := "PathPrefix"
	if settings.Router != nil && settings.Router.PathMatcher != "" {
		matcher = settings.Router.PathMatcher
	}
	if err == nil && matcher != "PathPrefix" && matcher != "Path" {
		err = fmt.Errorf("its annotation %srouter.pathmatcher is %.40q, allowed are Path and PathPrefix", annotationPrefix, matcher)
	}
	if err == nil && settings.Router != nil && slices.Contains(settings.Router.EntryPoints, internalName) {
		err = fmt.Errorf("its annotation %srouter.entrypoints names %s, where the node's dashboard is", annotationPrefix, internalName)
	}
	if err != nil {
		t.find(i, reasonAnnotation, "Ingress %s/%s is left out: %v", i.Namespace, i.Name, err)
		return
	}
	for _, one := range i.Spec.TLS {
		t.certificate(i.Namespace, one.SecretName)
	}
	hosts := map[string]bool{}
	for _, r := range i.Spec.Rules {
		hosts[strings.ToLower(r.Host)] = true
		if r.HTTP == nil {
			continue
		}
		for _, path := range r.HTTP.Paths {
			claim := kit.ClaimOf(r.Host, path)
			if _, lost := t.lost[kit.Loss{Ingress: types.NamespacedName{Namespace: i.Namespace, Name: i.Name}, Claim: claim}]; lost {
				continue
			}
			if path.Backend.Service == nil {
				t.find(i, reasonBackend, "%s is left out: its backend is a resource, and only Services are served", claim)
				continue
			}
			t.route(i, settings.Router, claim, matcher, path.Backend.Service)
		}
	}
	t.fallback(i, settings.Router, hosts)
}

// route adds the router of a path, and its service.
func (t *translation) route(i *networkingv1.Ingress, settings *upstream.RouterIng, claim kit.Claim, matcher string, backend *networkingv1.IngressServiceBackend) {
	text, priority := rule(claim, matcher)
	name := t.routers.name(strings.TrimPrefix(provider.Normalize(i.Namespace+"-"+i.Name+"-"+claim.Host+claim.Path), "-"),
		fmt.Sprintf("%s/%s %s", i.Namespace, i.Name, claim))
	if _, again := t.conf.HTTP.Routers[name]; again {
		return // the same claim twice in one Ingress: the first stands
	}
	t.conf.HTTP.Routers[name] = router(text, priority, t.backend(i, backend), settings)
}

// backend adds the service of a backend, which Ingresses of one namespace share, and returns its name.
func (t *translation) backend(i *networkingv1.Ingress, backend *networkingv1.IngressServiceBackend) string {
	port := backend.Port.Name
	if port == "" {
		port = strconv.Itoa(int(backend.Port.Number))
	}
	name := t.services.name(provider.Normalize(i.Namespace+"-"+backend.Name+"-"+port), i.Namespace+"/"+backend.Name+":"+port)
	service, err := t.loadBalancer(i.Namespace, backend)
	if err != nil {
		t.find(i, reasonBackend, "its requests for Service %s are answered with 503: %v", backend.Name, err)
	}
	t.conf.HTTP.Services[name] = service
	return name
}

func router(text string, priority int, service string, settings *upstream.RouterIng) *dynamic.Router {
	r := &dynamic.Router{Rule: text, Priority: priority, Service: service}
	if settings != nil {
		r.EntryPoints, r.TLS = settings.EntryPoints, settings.TLS
		r.Middlewares = slices.Clone(settings.Middlewares)
		if settings.Priority != 0 {
			r.Priority = settings.Priority
		}
	}
	if len(r.EntryPoints) == 0 {
		r.EntryPoints = []string{webName, secureName}
	}
	r.Middlewares = append(r.Middlewares, retryName)
	return r
}

// fallback serves an Ingress's default backend: for what its own hosts have no path for, and for all that no other
// router matches. The latter is the oldest's that has no rules, or else the oldest's.
func (t *translation) fallback(i *networkingv1.Ingress, settings *upstream.RouterIng, hosts map[string]bool) {
	backend := i.Spec.DefaultBackend
	if backend == nil {
		return
	}
	if backend.Service == nil {
		t.find(i, reasonBackend, "its default backend is left out: it is a resource, and only Services are served")
		return
	}
	for host := range hosts {
		if host == "" {
			continue
		}
		text, base := hostRule(host)
		name := t.routers.name(provider.Normalize(i.Namespace+"-"+i.Name+"-"+host)+"-default", fmt.Sprintf("%s/%s default of %s", i.Namespace, i.Name, host))
		t.conf.HTTP.Routers[name] = router(text+" && PathPrefix(`/`)", base, t.backend(i, backend.Service), settings)
	}
	alone := len(i.Spec.Rules) == 0
	switch other := t.defaultBackend; {
	case other != nil && alone && !t.defaultHasNoRoutes:
		// It is for all requests, the other's was besides.
	case other != nil && alone:
		t.find(i, reasonDefault, "its default backend is left out: Ingress %s/%s, which is older, has one for all hosts; remove one of the two", other.Namespace, other.Name)
		return
	case other != nil:
		return
	}
	t.defaultBackend, t.defaultHasNoRoutes = i, alone
	service, err := t.loadBalancer(i.Namespace, backend.Service)
	if err != nil {
		t.find(i, reasonBackend, "its requests for Service %s are answered with 503: %v", backend.Service.Name, err)
	}
	t.conf.HTTP.Services[defaultName] = service
	t.conf.HTTP.Routers["default-router"] = router("PathPrefix(`/`)", defaultPriority, defaultName, settings)
	if settings != nil {
		t.conf.HTTP.Routers["default-router"].Priority = defaultPriority
	}
}

// certificate adds a TLS secret's, unless it is missing or no good, of which the audit tells.
func (t *translation) certificate(namespace, name string) *tls.CertAndStores {
	key := namespace + "/" + name
	if known, there := t.certificates[key]; there || name == "" {
		return known
	}
	secret := t.secret(namespace, name)
	if secret == nil {
		return nil
	}
	if _, err := kit.Certificate(secret); err != nil {
		return nil
	}
	t.certificates[key] = &tls.CertAndStores{Certificate: tls.Certificate{
		CertFile: tls.FileOrContent(secret.Data[corev1.TLSCertKey]), KeyFile: tls.FileOrContent(secret.Data[corev1.TLSPrivateKeyKey])}}
	return t.certificates[key]
}

func (t *translation) tls() {
	t.conf.TLS = &dynamic.TLSConfiguration{}
	keys := make([]string, 0, len(t.certificates))
	for key := range t.certificates {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		t.conf.TLS.Certificates = append(t.conf.TLS.Certificates, t.certificates[key])
	}
	if t.defaultCertificate == "" {
		return
	}
	if c := t.certificate(secretName(t.defaultCertificate)); c != nil {
		t.conf.TLS.Stores = map[string]tls.Store{defaultStore: {DefaultCertificate: &c.Certificate}}
	}
}
