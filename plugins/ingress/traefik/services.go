package traefik

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/config/label"
	upstream "github.com/traefik/traefik/v2/pkg/provider/kubernetes/ingress"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
)

// loadBalancer is the service of a backend. One that is missing, or has no endpoints, is a service without servers,
// which Traefik answers 503 for. The error is for the owner of the Service or Ingress.
func (t *translation) loadBalancer(namespace string, backend *networkingv1.IngressServiceBackend) (*dynamic.Service, error) {
	passHost := true
	lb := &dynamic.ServersLoadBalancer{PassHostHeader: &passHost}
	out := &dynamic.Service{LoadBalancer: lb}
	service := t.service(namespace, backend.Name)
	if service == nil {
		return out, nil // the audit tells
	}
	var settings upstream.ServiceConfig
	if err := decodeAnnotations(service.Annotations, &settings, "traefik.service."); err != nil {
		return out, fmt.Errorf("the Service %s/%s: %w", namespace, backend.Name, err)
	}
	scheme := ""
	if s := settings.Service; s != nil {
		if s.PassHostHeader != nil {
			lb.PassHostHeader = s.PassHostHeader
		}
		lb.Sticky, lb.ServersTransport, scheme = s.Sticky, s.ServersTransport, s.ServersScheme
		if !slices.Contains([]string{"", "http", "https", "h2c"}, scheme) {
			return out, fmt.Errorf("the Service %s/%s: the annotation service.serversscheme is %.40q, allowed are http, https and h2c", namespace, backend.Name, scheme)
		}
	}
	port := kit.ServicePort(service, backend.Port)
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return out, t.external(service, port, backend.Port, scheme, lb)
	}
	if port == nil {
		return out, nil // the audit tells
	}
	if settings.Service != nil && settings.Service.NativeLB {
		if net.ParseIP(service.Spec.ClusterIP) == nil {
			return out, fmt.Errorf("the Service %s/%s has the annotation service.nativelb, but no cluster IP", namespace, backend.Name)
		}
		lb.Servers = []dynamic.Server{serverAt(schemeOf(scheme, port), service.Spec.ClusterIP, port.Port)}
		return out, nil
	}
	lb.Servers = servers(t.endpoints(namespace, backend.Name), service, port, schemeOf(scheme, port))
	return out, nil
}

func (t *translation) external(service *corev1.Service, port *corev1.ServicePort, wanted networkingv1.ServiceBackendPort,
	scheme string, lb *dynamic.ServersLoadBalancer) error {
	if !t.externalNames {
		return fmt.Errorf("the Service %s/%s is of type ExternalName, which is off: an Ingress could lead to any host that the node reaches; "+
			"allowExternalNameServices under components.%s turns it on", service.Namespace, service.Name, id)
	}
	number := wanted.Number
	if port != nil {
		number = port.Port
	} else {
		port = &corev1.ServicePort{Port: number}
	}
	if number == 0 {
		return fmt.Errorf("the Service %s/%s has no port %q; name a number, or add it", service.Namespace, service.Name, wanted.Name)
	}
	if target := t.inCluster(service.Spec.ExternalName); target != nil {
		if port := kit.ServicePort(target, networkingv1.ServiceBackendPort{Number: number}); port != nil {
			lb.Servers = servers(t.endpoints(target.Namespace, target.Name), target, port, schemeOf(scheme, port))
		}
		return nil
	}
	lb.Servers = []dynamic.Server{serverAt(schemeOf(scheme, port), service.Spec.ExternalName, number)}
	return nil
}

// inCluster is the Service that a name is of, or nil. The host's resolver, which names are looked up with, does not know
// those of the cluster.
func (t *translation) inCluster(name string) *corev1.Service {
	parts := strings.SplitN(strings.TrimSuffix(strings.ToLower(name), "."), ".", 3)
	if len(parts) < 3 || parts[2] != "svc" && parts[2] != "svc."+strings.ToLower(t.domain) {
		return nil
	}
	return t.service(parts[1], parts[0])
}

// schemeOf is what a server is spoken to with: what the annotation says, or else https for a port that looks like it.
func schemeOf(scheme string, port *corev1.ServicePort) string {
	switch {
	case scheme != "":
		return scheme
	case port.Port == 443 || strings.HasPrefix(port.Name, "https"):
		return "https"
	case port.AppProtocol != nil && *port.AppProtocol == "kubernetes.io/h2c":
		return "h2c"
	}
	return "http"
}

func serverAt(scheme, host string, port int32) dynamic.Server {
	return dynamic.Server{URL: scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(port)))}
}

// servers are the endpoints that are ready, or, if none is, those that still serve while they end: what kube-proxy does.
// They are of the Service's first family, so that no pod is there twice, and sorted, so that the same is the same.
func servers(slicesOf []*discoveryv1.EndpointSlice, service *corev1.Service, port *corev1.ServicePort, scheme string) []dynamic.Server {
	family := discoveryv1.AddressTypeIPv4
	if len(service.Spec.IPFamilies) > 0 {
		family = discoveryv1.AddressType(service.Spec.IPFamilies[0])
	}
	var ready, ending []dynamic.Server
	for _, s := range slicesOf {
		if s.AddressType != family {
			continue
		}
		number := int32(0)
		for _, p := range s.Ports {
			if p.Port != nil && (p.Name == nil && port.Name == "" || p.Name != nil && *p.Name == port.Name) {
				number = *p.Port
			}
		}
		if number == 0 {
			continue
		}
		for _, e := range s.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			one := serverAt(scheme, e.Addresses[0], number)
			switch c := e.Conditions; {
			case c.Ready == nil || *c.Ready:
				ready = append(ready, one)
			case c.Serving != nil && *c.Serving:
				ending = append(ending, one)
			}
		}
	}
	all := ready
	if len(all) == 0 {
		all = ending
	}
	slices.SortFunc(all, func(a, b dynamic.Server) int { return strings.Compare(a.URL, b.URL) })
	return slices.CompactFunc(all, func(a, b dynamic.Server) bool { return a.URL == b.URL })
}

// indexed is the form of an annotation that names an element of a list, router.tls.domains.0.main.
var indexed = regexp.MustCompile(`^(.+)\.(\w+)\.(\d+)\.(.+)$`)

// decodeAnnotations reads Traefik's annotations as its own provider of Ingresses does: they are its labels with another
// beginning.
func decodeAnnotations(annotations map[string]string, into any, filter string) error {
	labels := map[string]string{}
	for key, value := range annotations {
		rest, ours := strings.CutPrefix(key, annotationPrefix)
		if !ours {
			continue
		}
		labels[indexed.ReplaceAllString("traefik."+rest, "$1.$2[$3].$4")] = value
	}
	if len(labels) == 0 {
		return nil
	}
	if err := label.Decode(labels, into, filter); err != nil {
		return fmt.Errorf("its annotations %s… can't be read: %w", annotationPrefix, err)
	}
	return nil
}
