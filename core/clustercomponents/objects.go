package clustercomponents

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/k3m-io/k3m/core/objects"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// objectClient applies and removes the objects of components, and hears when somebody else changes
// one.
type objectClient struct {
	cluster      *Cluster
	placeholders expander
	client       *objects.Client
}

func newObjectClient(ctx context.Context, c *Cluster) *objectClient {
	return &objectClient{
		cluster: c, placeholders: newExpander(c.opts),
		client: objects.New(ctx, objects.Options{
			Discovery: c.client.Discovery(), Dynamic: c.dynamic, Metadata: c.metadata, Manager: fieldManager,
			Selector: strings.Join([]string{managedBy + "=" + fieldManager, idLabel}, ","),
			Changed:  c.summaryWork.raise,
		}),
	}
}

func (c *objectClient) end() { c.client.End() }

// expand are a component's objects, those that it has made up too, as they are to be applied, in the
// order of it.
func (c *objectClient) expand(info sdk.Info, owned []json.RawMessage) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, raw := range slices.Concat(info.Objects, owned) {
		o, err := c.placeholders.object(raw)
		if err != nil {
			return nil, err
		}
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[managedBy], labels[idLabel] = fieldManager, info.ID()
		o.SetLabels(labels)
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int { return objects.ByOrder(a.GetKind(), b.GetKind()) })
	return out, nil
}

// apply applies an object unless it is as it was applied last.
func (c *objectClient) apply(ctx context.Context, o *unstructured.Unstructured) error {
	return c.client.Apply(ctx, o)
}

// remove removes objects that a component owned, those that were applied last first, and returns
// those that are still there, with why. An object that has come to belong to another component,
// or to nobody, stays.
func (c *objectClient) remove(ctx context.Context, id string, refs []nodestatus.ObjectReference) (left []nodestatus.ObjectReference, err error) {
	return c.client.Remove(ctx, refs, func(ctx context.Context, o *unstructured.Unstructured) (bool, error) {
		if o.GetLabels()[idLabel] != id {
			return false, nil
		}
		used, err := c.inUse(ctx, o)
		return !used, err
	})
}

// inUse tells a definition of which there are objects: they are the user's, and would go with it.
func (c *objectClient) inUse(ctx context.Context, object *unstructured.Unstructured) (bool, error) {
	if !objects.IsDefinition(object) {
		return false, nil
	}
	for _, resource := range objects.Served(object) {
		list, err := c.cluster.metadata.Resource(resource).List(ctx, metav1.ListOptions{Limit: 1})
		if apierrors.IsNotFound(err) {
			return false, nil // not served yet, or no more
		}
		return err == nil && len(list.Items) > 0, err
	}
	return false, nil
}
