package nginx

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// className is the IngressClass that the component owns, and the value of the old
	// annotation.
	className = "nginx"
	// controllerName is ingress-nginx's, so that classes which were made for it are served.
	controllerName = "k8s.io/ingress-nginx"
	// annotationPrefix begins the names of ingress-nginx's annotations.
	annotationPrefix = "nginx.ingress.kubernetes.io/"
	// classAnnotation is how Ingresses named their class before the field was there.
	classAnnotation = "kubernetes.io/ingress.class"
)

// classes are the IngressClasses that are the component's.
type classes struct {
	names map[string]bool
	// unnamed says that Ingresses without a class are the component's: one of its classes is
	// the default.
	unnamed bool
	// parameters is the ConfigMap that the class names; nil for none.
	parameters *types.NamespacedName
	// problem is what is wrong with the parameters; empty for nothing.
	problem string
	class   *networkingv1.IngressClass // whose parameters they are
}

// classesOf reads the classes. One with parameters is heeded, the component's own before
// all, then by name: there is one set of global settings.
func classesOf(all []*networkingv1.IngressClass) classes {
	c := classes{names: map[string]bool{}}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *networkingv1.IngressClass) int {
		own := func(i *networkingv1.IngressClass) int {
			if i.Name == className {
				return 0
			}
			return 1
		}
		return cmp.Or(own(a)-own(b), strings.Compare(a.Name, b.Name))
	})
	for _, class := range all {
		if class.Spec.Controller != controllerName {
			continue
		}
		c.names[class.Name] = true
		c.unnamed = c.unnamed || class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
		p := class.Spec.Parameters
		if p == nil || c.class != nil {
			continue
		}
		c.class = class
		switch {
		case p.Kind != "ConfigMap" || p.APIGroup != nil && *p.APIGroup != "":
			c.problem = "parameters of kind " + p.Kind + " mean nothing to ingress.nginx; name a ConfigMap"
		case p.Namespace == nil:
			c.problem = `parameters name no namespace; set scope: Namespace, and the ConfigMap's namespace`
		default:
			c.parameters = &types.NamespacedName{Namespace: *p.Namespace, Name: p.Name}
		}
	}
	return c
}

// has tells whether an Ingress is the component's.
func (c classes) has(i *networkingv1.Ingress) bool {
	if name := i.Spec.IngressClassName; name != nil {
		return c.names[*name]
	}
	if name, ok := i.Annotations[classAnnotation]; ok {
		return name == className || c.names[name]
	}
	return c.unnamed
}

// reference is a class as an Event names it.
func reference(class *networkingv1.IngressClass) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "IngressClass", Name: class.Name, UID: class.UID}
}
