package translate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// backend finds where a Service's requests go. What is wrong is a problem of ing; said are
// the annotations that hold (a canary's are its main Ingress's).
func (b *builder) backend(ing *ingress, said *annotations.Annotations, ref *networkingv1.IngressServiceBackend) model.Backend {
	backend, err := b.resolve(ing.Namespace, ref.Name, portText(ref.Port), said)
	if err != nil {
		b.problem(ing, reasonOf(err), "%v; its paths answer 503", err)
	}
	return backend
}

// firstPort finds where the requests of a Service's first port go, as ingress-nginx's
// default-backend says.
func (b *builder) firstPort(ing *ingress, namespace, name string) model.Backend {
	service := b.in.Service(namespace, name)
	err := error(missing{fmt.Errorf("default-backend: there is no Service %s/%s with a port", namespace, name)})
	if service != nil && len(service.Spec.Ports) > 0 {
		var backend model.Backend
		if backend, err = b.resolve(namespace, name, strconv.Itoa(int(service.Spec.Ports[0].Port)), &annotations.Annotations{}); err == nil {
			return backend
		}
	}
	b.problem(ing, reasonOf(err), "%v", err)
	return model.Backend{}
}

// missing is the error of a Service, or of a port of one, that isn't there.
type missing struct{ error }

func reasonOf(err error) Reason {
	if errors.As(err, &missing{}) {
		return BackendMissing
	}
	return BadBackend
}

// resolve finds a Service's endpoints. None is no error.
func (b *builder) resolve(namespace, name, port string, said *annotations.Annotations) (model.Backend, error) {
	service := b.in.Service(namespace, name)
	if service == nil {
		return model.Backend{}, missing{fmt.Errorf("there is no Service %s/%s", namespace, name)}
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return b.external(service, port)
	}
	found := servicePort(service, port)
	if found == nil {
		return model.Backend{}, missing{fmt.Errorf("the Service %s/%s has no port %s", namespace, name, value.Show(port))}
	}
	up := &model.Upstream{Name: fmt.Sprintf("%s.%s.%d", name, namespace, found.Port), Sticky: said.Sticky, HashBy: said.HashBy}
	up.Name += spoken(&said.Policy)
	whole := b.in.Settings.ServiceUpstream
	if said.ServiceUp != nil {
		whole = *said.ServiceUp
	}
	if addr, err := netip.ParseAddr(service.Spec.ClusterIP); whole && err == nil {
		up.Name += ".service"
		up.Endpoints = []netip.AddrPort{netip.AddrPortFrom(addr, uint16(found.Port))}
		// The Service shares requests out itself.
		up.Sticky, up.HashBy = nil, ""
	}
	switch {
	case up.Sticky != nil:
		cookie := *up.Sticky
		if cookie.Path == "" {
			cookie.Path = "/"
		}
		up.Sticky, up.HashBy = &cookie, ""
		up.Name += ".cookie-" + id(fmt.Sprintf("%#v", cookie))
	case up.HashBy != "":
		up.Name += ".hash-" + id(up.HashBy)
	}
	if b.upstreams[up.Name] == nil {
		if up.Endpoints == nil {
			up.Endpoints = endpoints(service, found.Name, b.in.EndpointSlices(namespace, name))
		}
		if len(up.Endpoints) == 0 {
			return model.Backend{}, nil
		}
		b.upstreams[up.Name] = up
	}
	return model.Backend{Upstream: up.Name}, nil
}

// external is a name that nginx looks up itself.
func (b *builder) external(service *corev1.Service, port string) (model.Backend, error) {
	what := fmt.Sprintf("the Service %s/%s", service.Namespace, service.Name)
	if !b.in.Settings.AllowExternalName {
		return model.Backend{}, fmt.Errorf("%s is of type ExternalName, which is no backend unless the setting disable-svc-external-name is \"false\"", what)
	}
	number, err := value.Int(port, 1, 65535)
	if err != nil {
		found := servicePort(service, port)
		if found == nil {
			return model.Backend{}, fmt.Errorf("%s has no port %s", what, value.Show(port))
		}
		number = int(found.Port)
	}
	host, err := value.Host(strings.TrimSuffix(service.Spec.ExternalName, "."))
	if err == nil {
		err = value.Outside(host)
	}
	if err == nil && strings.HasPrefix(host, "*") {
		err = fmt.Errorf("%s is not a host name", value.Show(host))
	}
	if err != nil {
		return model.Backend{}, fmt.Errorf("%s: externalName: %w", what, err)
	}
	return model.Backend{External: net.JoinHostPort(host, strconv.Itoa(number))}, nil
}

// servicePort finds a port by its name or number.
func servicePort(service *corev1.Service, port string) *corev1.ServicePort {
	number, err := strconv.Atoi(port)
	for i := range service.Spec.Ports {
		found := &service.Spec.Ports[i]
		if found.Protocol != "" && found.Protocol != corev1.ProtocolTCP {
			continue
		}
		if err == nil && int(found.Port) == number || err != nil && found.Name == port {
			return found
		}
	}
	return nil
}

// endpoints are the ready ones of a port, sorted; where none is ready, those that still
// serve while they end, as kube-proxy does.
func endpoints(service *corev1.Service, port string, all []*discoveryv1.EndpointSlice) []netip.AddrPort {
	family := discoveryv1.AddressType("")
	if len(service.Spec.IPFamilies) > 0 {
		family = discoveryv1.AddressType(service.Spec.IPFamilies[0])
	}
	var ready, ending []netip.AddrPort
	for pass := 0; pass < 2 && len(ready)+len(ending) == 0; pass++ {
		for _, slice := range all {
			if slice.AddressType == discoveryv1.AddressTypeFQDN || pass == 0 && family != "" && slice.AddressType != family {
				continue
			}
			number := slicePort(slice, port)
			if number == 0 {
				continue
			}
			for i := range slice.Endpoints {
				one := &slice.Endpoints[i]
				into := &ready
				if one.Conditions.Ready != nil && !*one.Conditions.Ready {
					if one.Conditions.Serving == nil || !*one.Conditions.Serving || one.Conditions.Terminating == nil || !*one.Conditions.Terminating {
						continue
					}
					into = &ending
				}
				for _, text := range one.Addresses {
					if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
						*into = append(*into, netip.AddrPortFrom(addr.Unmap(), number))
					}
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

// slicePort is the number of a Service's port in a slice; 0 for none.
func slicePort(slice *discoveryv1.EndpointSlice, name string) uint16 {
	for _, port := range slice.Ports {
		if port.Port == nil || *port.Port < 1 || *port.Port > 65535 || port.Protocol != nil && *port.Protocol != corev1.ProtocolTCP {
			continue
		}
		if port.Name == nil && name == "" || port.Name != nil && *port.Name == name {
			return uint16(*port.Port)
		}
	}
	return 0
}

// spoken tells upstreams apart by what is spoken to them: nginx keeps connections by the upstream
// alone, and would speak HTTP on one that was opened for gRPC, or send one host's requests
// on a connection that was opened for another.
func spoken(p *model.Policy) string {
	if p.Protocol == model.HTTP || p.Protocol == "" {
		return ""
	}
	name := "." + strings.ToLower(string(p.Protocol))
	if p.SendName && p.Protocol != model.GRPC {
		name += "-" + id(p.BackendName)
	}
	return name
}
