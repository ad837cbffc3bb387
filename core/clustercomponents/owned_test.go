package clustercomponents_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/k3m-io/k3m/sdk"
)

// door is a component that makes up its Service, and defines a kind.
func door() sdk.Info {
	return sdk.Info{
		Kind: "ingress", Name: "door", Version: "1.0.0", Summary: "for a test", Scope: sdk.NodeScope,
		Declares: []sdk.ObjectRef{{APIVersion: "v1", Kind: "Service", Namespace: "kube-system", Name: "door"}},
		Objects: []json.RawMessage{json.RawMessage(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",
			"metadata":{"name":"doors.example.com"},"spec":{"group":"example.com","scope":"Namespaced",
			"names":{"plural":"doors","singular":"door","kind":"Door"},
			"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`)},
	}
}

func doorService(port int) map[string][]json.RawMessage {
	return map[string][]json.RawMessage{"ingress.door": {json.RawMessage(fmt.Sprintf(
		`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"kube-system","name":"door"},"spec":{"ports":[{"name":"web","port":%d,"protocol":"TCP"}]}}`, port))}}
}

func TestMadeUpObjects(t *testing.T) {
	services := client.CoreV1().Services("kube-system")
	wantPort := func(t *testing.T, port int32) {
		t.Helper()
		eventually(t, "the Service", func(ctx context.Context) error {
			s, err := services.Get(ctx, "door", metav1.GetOptions{})
			if err == nil && (len(s.Spec.Ports) != 1 || s.Spec.Ports[0].Port != port) {
				err = fmt.Errorf("ports %v", s.Spec.Ports)
			}
			return err
		})
	}
	c, stop := keep(t, door())
	c.SetOwned(doorService(80))
	wantPort(t, 80)
	c.SetOwned(doorService(8080))
	wantPort(t, 8080)
	stop()

	// A server that starts anew leaves it alone until the component has said what it is.
	c, stop = keep(t, door())
	if err := services.Delete(t.Context(), "door", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.SetOwned(doorService(8081))
	wantPort(t, 8081)
	c.SetOwned(map[string][]json.RawMessage{"ingress.door": {}})
	gone(t, "the Service", func(ctx context.Context) error {
		_, err := services.Get(ctx, "door", metav1.GetOptions{})
		return err
	})
	c.SetOwned(doorService(80))
	wantPort(t, 80)

	// A definition of which there are objects outlives the component; all else goes.
	doors := objects.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "doors"}).Namespace("default")
	mine := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Door", "metadata": map[string]any{"name": "mine"}}}
	eventually(t, "a door", func(ctx context.Context) error {
		_, err := doors.Create(ctx, mine, metav1.CreateOptions{})
		return err
	})
	c.SetSelected(nil)
	gone(t, "the Component", func(ctx context.Context) error {
		_, err := objects.Resource(resource("components")).Get(ctx, "ingress.door", metav1.GetOptions{})
		return err
	})
	gone(t, "the Service", func(ctx context.Context) error {
		_, err := services.Get(ctx, "door", metav1.GetOptions{})
		return err
	})
	if _, err := doors.Get(t.Context(), "mine", metav1.GetOptions{}); err != nil {
		t.Errorf("the user's object: %v", err)
	}
	if err := doors.Delete(t.Context(), "mine", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.SetSelected([]sdk.Info{door()})
	wantComponent(t, "ingress.door", wantObjects(2))
	c.SetSelected(nil)
	gone(t, "the definition", func(ctx context.Context) error {
		_, err := objects.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).
			Get(ctx, "doors.example.com", metav1.GetOptions{})
		return err
	})
	stop()
}
