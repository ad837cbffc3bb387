package kit

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Namespace is where the Services of components are.
const Namespace = "kube-system"

// Port is a port of a component's Service.
type Port struct {
	Name     string
	Port     uint16
	Protocol corev1.Protocol // empty is TCP
}

// ObjectsOptions say how a component of kind ingress is reached.
type ObjectsOptions struct {
	// Service is the name of the Service, in Namespace.
	Service string
	// Class is the name of the IngressClass, Controller its spec.controller.
	Class, Controller string
	// Labels are those of both.
	Labels map[string]string
	// Annotations are added to those of the Service.
	Annotations map[string]string
	Ports       []Port
	// NodePortOnly makes a Service that asks for no address: the ports are somebody else's.
	NodePortOnly bool
	// Default makes the class that of Ingresses which name none.
	Default bool
}

// Objects returns the Service and the IngressClass, for Host.Own. The Service keeps the
// client's address, has no selector (its EndpointSlices come from Host.Serve), and one
// cluster IP for each family that the cluster has.
func Objects(o ObjectsOptions) ([]json.RawMessage, error) {
	policy := corev1.IPFamilyPolicyPreferDualStack
	service := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: o.Service, Namespace: Namespace, Labels: o.Labels,
			Annotations: o.Annotations},
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeLoadBalancer,
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			IPFamilyPolicy:        &policy,
		},
	}
	if o.NodePortOnly {
		service.Spec.Type = corev1.ServiceTypeNodePort
	}
	for _, p := range o.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{
			Name: p.Name, Port: int32(p.Port), Protocol: protocol})
	}
	class := &networkingv1.IngressClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IngressClass"},
		ObjectMeta: metav1.ObjectMeta{Name: o.Class, Labels: o.Labels},
		Spec:       networkingv1.IngressClassSpec{Controller: o.Controller},
	}
	if o.Default {
		class.Annotations = map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}
	}
	var all []json.RawMessage
	for _, object := range []any{service, class} {
		raw, err := stripped(object)
		if err != nil {
			return nil, fmt.Errorf("encode the objects of IngressClass %s: %w", o.Class, err)
		}
		all = append(all, raw)
	}
	return all, nil
}

// stripped encodes an object without what the API itself fills in.
func stripped(object any) (json.RawMessage, error) {
	raw, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	delete(fields, "status")
	if meta, ok := fields["metadata"].(map[string]any); ok {
		delete(meta, "creationTimestamp")
	}
	if spec, ok := fields["spec"].(map[string]any); ok {
		if ports, ok := spec["ports"].([]any); ok {
			for _, port := range ports {
				if p, ok := port.(map[string]any); ok {
					delete(p, "targetPort")
				}
			}
		}
	}
	return json.Marshal(fields)
}

// The ports of the first component of its kind.
const (
	HTTPPort  = 80
	HTTPSPort = 443
)

// Exposure is how a component is reached, by its rank among those of its kind and by its
// configuration.
type Exposure struct {
	HTTP, HTTPS uint16
	// NodePortOnly says that HTTP and HTTPS are those of the first of the kind, and so
	// only the node ports of the Service lead here. Warning then says what to do.
	NodePortOnly bool
	Warning      string
	// Default says that the IngressClass is that of Ingresses which name none.
	Default bool
}

// Expose decides by the component's ID, its rank (Facts.KindRank) and its configuration, in
// which 0 stands for a port that is not named.
func Expose(id string, rank int, http, https uint16) Exposure {
	e := Exposure{HTTP: http, HTTPS: https, Default: rank == 0}
	if rank > 0 && http == 0 && https == 0 {
		e.NodePortOnly = true
		e.Warning = fmt.Sprintf("ports %d and %d are those of the first ingress chosen; reachable by NodePort; "+
			"set httpPort and httpsPort under components.%s", HTTPPort, HTTPSPort, id)
	}
	if e.HTTP == 0 {
		e.HTTP = HTTPPort
	}
	if e.HTTPS == 0 {
		e.HTTPS = HTTPSPort
	}
	return e
}
