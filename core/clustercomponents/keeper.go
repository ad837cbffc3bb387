package clustercomponents

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/core/objects"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// healthPart is what the objects of components are called on the health board.
const healthPart = "component objects"

// keeper writes Component objects and the objects that components own. Its loop is its only
// goroutine, so a component's objects and the record of them change in order:
//
//	recorded in Component.status.objects ── applied ── … ── removed ── taken off the record
//
// and a server that dies in between leaves nothing that the next one does not know of.
type keeper struct {
	*Cluster
	watches  *watches
	objects  *objectClient
	recorder record.EventRecorder

	seeded  bool
	written map[string]nodestatus.Component     // as the API has them, by ID
	uids    map[string]types.UID                // of the Component objects
	history map[string]map[string]*past         // by ID and node
	opened  map[nodestatus.ObjectReference]bool // APIServices that were applied
}

// keepComponents keeps Components and their objects until ctx ends.
func (c *Cluster) keepComponents(ctx context.Context, w *watches) error {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.client.CoreV1().Events("")})
	k := &keeper{
		Cluster: c, watches: w, objects: newObjectClient(ctx, c),
		recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: fieldManager}),
		written:  map[string]nodestatus.Component{}, uids: map[string]types.UID{}, history: map[string]map[string]*past{},
		opened: map[nodestatus.ObjectReference]bool{},
	}
	defer k.objects.end()
	return c.loop(ctx, c.summaryWork, summaryInterval, summaryBurst, "the state of components can't be shown", k.sync)
}

func (k *keeper) sync(ctx context.Context) error {
	s, ok := k.snapshot()
	if !ok {
		return nil
	}
	k.see()
	owners, wanted, applyErr := k.share(s)
	failed := map[string]bool{}
	for _, work := range []func(id string) error{
		func(id string) error { return k.applyObjects(ctx, s, id, wanted[id]) },
		// What has moved to another component is off the record of the one before when it is
		// the other's.
		func(id string) error { return k.dropObjects(ctx, s, id, wanted[id], owners, failed) },
	} {
		for _, id := range s.order {
			if _, ok := wanted[id]; !ok {
				continue
			}
			if err := work(id); err != nil {
				failed[id] = true
				applyErr = errors.Join(applyErr, fmt.Errorf("component %s: %w", id, err))
			}
		}
	}
	k.tell(applyErr)
	errs := []error{applyErr}
	for _, id := range slices.Sorted(maps.Keys(k.written)) {
		if _, selected := s.selected[id]; !selected {
			errs = append(errs, k.remove(ctx, id, owners))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.selected)) {
		errs = append(errs, k.write(ctx, s, id, k.written[id].Status.Objects))
	}
	return errors.Join(errs...)
}

// see takes note of Components that the API has and k3m did not write since it started, or had,
// and somebody has removed.
func (k *keeper) see() {
	for _, o := range k.watches.components.List() {
		object, ok := o.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		id := object.GetName()
		if _, known := k.written[id]; known || k.seeded {
			continue
		}
		var c nodestatus.Component
		if err := fromUnstructured(object, &c); err != nil {
			k.opts.Logger.Warn("a Component object can't be read; writing it anew", "component", id, "error", err)
		}
		k.written[id], k.uids[id] = c, object.GetUID()
	}
	k.seeded = true
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.removed {
		if c, ok := k.written[id]; ok {
			c.Spec = nodestatus.ComponentSpec{} // so that it is written again
			k.written[id] = c
		}
	}
	clear(k.removed)
}

// share says whose is what, and what is to be applied for each component; those whose objects can't
// be read are left out, and are in the error. Of two that own the same object, as in a swap, the first
// has it.
func (k *keeper) share(s *snapshot) (owners map[nodestatus.ObjectReference]string, wanted map[string][]*unstructured.Unstructured, err error) {
	owners, wanted = map[nodestatus.ObjectReference]string{}, map[string][]*unstructured.Unstructured{}
	for _, id := range s.order {
		owned, said := s.owned[id]
		all, readErr := k.objects.expand(s.selected[id], owned)
		if readErr != nil {
			err = errors.Join(err, fmt.Errorf("component %s: %w", id, readErr))
			continue
		}
		wanted[id] = slices.DeleteFunc(all, func(o *unstructured.Unstructured) bool {
			ref := referenceTo(o)
			if _, taken := owners[ref]; taken {
				return true
			}
			owners[ref] = id
			return false
		})
		if said {
			continue
		}
		for _, d := range s.selected[id].Declares { // nobody knows yet what they are to be: what there is stays
			ref := nodestatus.ObjectReference(d)
			if _, taken := owners[ref]; !taken {
				owners[ref] = id
			}
		}
	}
	return owners, wanted, err
}

// applyObjects applies what a component owns, after it was put on record.
func (k *keeper) applyObjects(ctx context.Context, s *snapshot, id string, wanted []*unstructured.Unstructured) error {
	recorded := k.written[id].Status.Objects
	all := slices.Clone(recorded)
	for _, o := range wanted {
		if ref := referenceTo(o); !slices.Contains(all, ref) {
			all = append(all, ref)
		}
	}
	if len(all) > len(recorded) {
		if err := k.write(ctx, s, id, all); err != nil {
			return err
		}
	}
	var errs []error
	for _, o := range wanted {
		if k.early(s.selected[id], o) {
			continue
		}
		errs = append(errs, k.objects.apply(ctx, o))
	}
	return errors.Join(errs...)
}

// early tells an APIService whose Service the component serves, and nobody has served yet: the API
// server would ask it in vain, and tell its clients that a part of its groups is unknown. Once it is
// applied, it stays.
func (k *keeper) early(info sdk.Info, o *unstructured.Unstructured) bool {
	ref := referenceTo(o)
	if o.GroupVersionKind().Group != "apiregistration.k8s.io" || ref.Kind != "APIService" || k.opened[ref] {
		return false
	}
	namespace, _, _ := unstructured.NestedString(o.Object, "spec", "service", "namespace") // "" when it has none
	name, _, _ := unstructured.NestedString(o.Object, "spec", "service", "name")
	k.opened[ref] = !slices.Contains(info.Services, namespace+"/"+name) || k.watches.served(namespace, name)
	return !k.opened[ref]
}

// dropObjects removes what a component owned and nobody owns any more, and takes it and what another
// owns now off the record; failed are components that may not have applied what is theirs.
func (k *keeper) dropObjects(ctx context.Context, s *snapshot, id string, wanted []*unstructured.Unstructured,
	owners map[nodestatus.ObjectReference]string, failed map[string]bool) error {
	recorded := k.written[id].Status.Objects
	left, err := k.objects.remove(ctx, id, unowned(recorded, owners))
	var keep []nodestatus.ObjectReference
	for _, o := range wanted {
		keep = append(keep, referenceTo(o))
	}
	for _, ref := range recorded {
		if slices.Contains(keep, ref) {
			continue
		}
		if owner := owners[ref]; slices.Contains(left, ref) || owner == id || owner != "" && failed[owner] {
			keep = append(keep, ref)
		}
	}
	if len(keep) != len(recorded) {
		err = errors.Join(err, k.write(ctx, s, id, keep))
	}
	return err
}

// remove removes what a component that is not selected any more owned, and then its object.
func (k *keeper) remove(ctx context.Context, id string, owners map[nodestatus.ObjectReference]string) error {
	c := k.written[id]
	left, err := k.objects.remove(ctx, id, unowned(c.Status.Objects, owners))
	if len(left) > 0 {
		c.Status.Objects = left
		k.written[id] = c
		return fmt.Errorf("component %s: %w", id, err)
	}
	err = k.dynamic.Resource(componentResource).Delete(ctx, id, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("component %s: %w", id, err)
	}
	for _, ref := range c.Status.Objects {
		delete(k.opened, ref)
	}
	delete(k.written, id)
	delete(k.uids, id)
	delete(k.history, id)
	return nil
}

// unowned are the objects that no selected component owns.
func unowned(refs []nodestatus.ObjectReference, owners map[nodestatus.ObjectReference]string) []nodestatus.ObjectReference {
	return slices.DeleteFunc(slices.Clone(refs), func(r nodestatus.ObjectReference) bool { return owners[r] != "" })
}

// write writes a Component if it has changed, and tells of what has changed in Events.
func (k *keeper) write(ctx context.Context, s *snapshot, id string, objects []nodestatus.ObjectReference) error {
	c := s.summarize(s.selected[id])
	c.Status.Objects = objects
	before := k.written[id]
	if equalComponents(before, c) {
		return nil
	}
	object, err := toUnstructured(c)
	if err != nil {
		return err
	}
	object.SetAPIVersion(nodestatus.Group + "/" + nodestatus.Version)
	object.SetKind(nodestatus.ComponentKind)
	object.SetName(id)
	object.SetLabels(map[string]string{managedBy: fieldManager})
	done, err := k.dynamic.Resource(componentResource).Apply(ctx, id, object, apply)
	if err != nil {
		return fmt.Errorf("component %s: %w", id, err)
	}
	k.written[id], k.uids[id] = c, done.GetUID()
	if k.history[id] == nil {
		k.history[id] = map[string]*past{}
	}
	for _, n := range notesOn(before.Status.Nodes, c.Status.Nodes, s.errorTimes(id), k.history[id]) {
		k.recorder.Event(k.reference(id), n.kind, n.reason, n.message)
	}
	return nil
}

func (k *keeper) reference(id string) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: nodestatus.Group + "/" + nodestatus.Version, Kind: nodestatus.ComponentKind, Name: id, UID: k.uids[id],
	}
}

// tell puts an error of the objects on the health board, or takes it off.
func (k *keeper) tell(err error) {
	if err == nil {
		k.opts.Health.Remove(healthPart)
		return
	}
	k.opts.Health.Set(health.Condition{
		Part: healthPart, State: health.Degraded, Message: strings.ReplaceAll(err.Error(), "\n", "; "),
		Fix: "Look whether something else forbids the objects, such as an admission webhook; k3m tries again.",
	})
}

// equalComponents compares times as the API keeps them, without a location.
func equalComponents(a, b nodestatus.Component) bool {
	if len(a.Status.Nodes) != len(b.Status.Nodes) {
		return false
	}
	a.Status.Nodes, b.Status.Nodes = slices.Clone(a.Status.Nodes), slices.Clone(b.Status.Nodes)
	for i := range a.Status.Nodes {
		if !a.Status.Nodes[i].Since.Equal(b.Status.Nodes[i].Since) {
			return false
		}
		a.Status.Nodes[i].Since = b.Status.Nodes[i].Since
	}
	if len(a.Status.Objects) == 0 && len(b.Status.Objects) == 0 {
		a.Status.Objects, b.Status.Objects = nil, nil
	}
	if len(a.Status.Nodes) == 0 {
		a.Status.Nodes, b.Status.Nodes = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// idLabel is on every object of a component, with its ID.
const idLabel = "k3m.io/component"

// referenceTo names an object.
func referenceTo(o *unstructured.Unstructured) nodestatus.ObjectReference {
	return objects.ReferenceTo(o)
}
