package objects

import (
	"context"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

var definitionResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// IsDefinition tells whether an object defines a kind.
func IsDefinition(o *unstructured.Unstructured) bool {
	kind := o.GroupVersionKind()
	return kind.Kind == "CustomResourceDefinition" && kind.Group == definitionResource.Group
}

// Install applies a CustomResourceDefinition and returns when the API serves the kind.
func Install(ctx context.Context, objects dynamic.Interface, definition *unstructured.Unstructured, manager string) error {
	if _, err := objects.Resource(definitionResource).Apply(ctx, definition.GetName(), definition, metav1.ApplyOptions{FieldManager: manager, Force: true}); err != nil {
		return err
	}
	return AwaitServed(ctx, objects, definition)
}

// AwaitServed returns when the API serves the versions of a CustomResourceDefinition that is there.
func AwaitServed(ctx context.Context, objects dynamic.Interface, definition *unstructured.Unstructured) error {
	client := objects.Resource(definitionResource)
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, definition.GetName()).String()
	lists := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return client.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return client.Watch(ctx, o)
		},
	}
	_, err := watchtools.UntilWithSync(ctx, lists, &unstructured.Unstructured{}, nil, func(e watch.Event) (bool, error) {
		object, ok := e.Object.(*unstructured.Unstructured)
		return ok && e.Type != watch.Deleted && established(object), nil
	})
	if err != nil {
		return err
	}
	for _, resource := range Served(definition) {
		if err := served(ctx, objects.Resource(resource)); err != nil {
			return err
		}
	}
	return nil
}

// Served are the resources that a CustomResourceDefinition has served.
func Served(definition *unstructured.Unstructured) []schema.GroupVersionResource {
	group, _, _ := unstructured.NestedString(definition.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(definition.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	var out []schema.GroupVersionResource
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok || version["served"] != true {
			continue
		}
		if name, ok := version["name"].(string); ok {
			out = append(out, schema.GroupVersionResource{Group: group, Version: name, Resource: plural})
		}
	}
	return out
}

func established(definition *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(definition.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		condition, ok := c.(map[string]any)
		return ok && condition["type"] == "Established" && condition["status"] == "True"
	})
}

// served waits until the API answers for a kind that is Established: its handler reads the
// condition from a cache of its own, and there is no event for that.
func served(ctx context.Context, objects dynamic.ResourceInterface) error {
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := objects.List(ctx, metav1.ListOptions{Limit: 1})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}
