package clustercomponents_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/sdk"
)

func TestObjects(t *testing.T) {
	c, stop := keep(t, dns())
	eventually(t, "the Service", func(ctx context.Context) error {
		s, err := client.CoreV1().Services("kube-system").Get(ctx, "test-dns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s.Spec.ClusterIP != "10.43.0.10" || s.Labels["k3m.io/component"] != "dns.test" || s.Labels["app.kubernetes.io/managed-by"] != "k3m" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	configMaps := client.CoreV1().ConfigMaps("kube-system")
	wantConfigMap := func(t *testing.T) {
		t.Helper()
		eventually(t, "the ConfigMap", func(ctx context.Context) error {
			m, err := configMaps.Get(ctx, "test-dns", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if m.Data["domain"] != "the cluster.local" || m.Data["ca"] != "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==" {
				return fmt.Errorf("data %v", m.Data)
			}
			return nil
		})
	}
	wantConfigMap(t)
	wantComponent(t, "dns.test", wantObjects(2))
	t.Run("changed by hand", func(t *testing.T) {
		patch := []byte(`{"data":{"domain":"mine","more":"of mine"},"metadata":{"labels":{"k3m.io/component":null}}}`)
		if _, err := configMaps.Patch(t.Context(), "test-dns", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		wantConfigMap(t)
	})
	t.Run("removed by hand", func(t *testing.T) {
		if err := configMaps.Delete(t.Context(), "test-dns", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		wantConfigMap(t)
	})
	t.Run("a part of them goes", func(t *testing.T) {
		less := dns()
		less.Objects = less.Objects[:1]
		c.SetSelected([]sdk.Info{less})
		gone(t, "the ConfigMap", func(ctx context.Context) error {
			_, err := configMaps.Get(ctx, "test-dns", metav1.GetOptions{})
			return err
		})
		if err := getService(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("a swap keeps what both own", func(t *testing.T) {
		s, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		other := dns()
		other.Name = "other"
		c.SetSelected([]sdk.Info{other, dns()}) // both run for a moment
		wantComponent(t, "dns.other", wantObjects(2))
		wantComponent(t, "dns.test", wantObjects(0))
		c.SetSelected([]sdk.Info{other})
		gone(t, "the old Component", func(ctx context.Context) error {
			_, err := objects.Resource(resource("components")).Get(ctx, "dns.test", metav1.GetOptions{})
			return err
		})
		after, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil || after.UID != s.UID || after.Labels["k3m.io/component"] != "dns.other" {
			t.Errorf("the Service: %v, %v", after.ObjectMeta, err)
		}
	})
	t.Run("an object that moves to a later component", func(t *testing.T) {
		before, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		without, heir := dns(), dns()
		without.Name, without.Objects, heir.Name = "other", nil, "heir"
		c.SetSelected([]sdk.Info{without, heir})
		wantComponent(t, "dns.heir", wantObjects(2))
		wantComponent(t, "dns.other", wantObjects(0)) // off its record when it is the other's
		after, err := client.CoreV1().Services("kube-system").Get(t.Context(), "test-dns", metav1.GetOptions{})
		if err != nil || after.UID != before.UID || after.Labels["k3m.io/component"] != "dns.heir" {
			t.Errorf("the Service: %v, %v", after, err)
		}
	})
	t.Run("a server that was down meanwhile", func(t *testing.T) {
		stop()
		_, stopNext := keep(t)
		gone(t, "the Service", getService)
		stopNext()
	})
}

// An APIService whose Service the component serves is there once somebody serves it, and stays.
func TestAPIServices(t *testing.T) {
	opened := func(name, service string) json.RawMessage {
		return fmt.Appendf(nil, `{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.%[1]s"},"spec":{
			"group":"%[1]s","version":"v1","groupPriorityMinimum":100,"versionPriority":100,"insecureSkipTLSVerify":true,
			"service":{"namespace":"kube-system","name":"%[2]s"}}}`, name, service)
	}
	info := dns()
	info.Objects = append(info.Objects, opened("own.example.org", "test-dns"), opened("pods.example.org", "of-pods"))
	c, _ := keep(t, info)
	apis := objects.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	get := func(ctx context.Context, name string) error {
		_, err := apis.Get(ctx, name, metav1.GetOptions{})
		return err
	}
	node := addNode(t, "api-1", "10.42.41.0/24")
	node.live()
	node.says(answers("Starting"))
	wantComponent(t, "dns.test", wantState("Starting", "0/1"))
	eventually(t, "the APIService of pods", func(ctx context.Context) error { return get(ctx, "v1.pods.example.org") })
	if err := get(t.Context(), "v1.own.example.org"); !apierrors.IsNotFound(err) {
		t.Errorf("an APIService that nobody serves: %v", err)
	}
	node.says(answers("Ready", "10.42.41.1"))
	eventually(t, "the APIService", func(ctx context.Context) error { return get(ctx, "v1.own.example.org") })
	node.says(answers("Backoff"))
	wantServed(t, "test-dns")
	wantComponent(t, "dns.test", wantState("Backoff", "0/1"))
	if err := apis.Delete(t.Context(), "v1.own.example.org", metav1.DeleteOptions{}); err != nil {
		t.Errorf("it is there no more: %v", err)
	}
	eventually(t, "the APIService again", func(ctx context.Context) error { return get(ctx, "v1.own.example.org") })
	c.SetSelected(nil)
	for _, name := range []string{"v1.own.example.org", "v1.pods.example.org"} {
		gone(t, name, func(ctx context.Context) error { return get(ctx, name) })
	}
}
