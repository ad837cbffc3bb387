package manifests

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/k3m-io/k3m/core/objects"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// servedPatience is how long a new kind may take until the API serves it.
const servedPatience = 15 * time.Second

// work is what is done for one file.
type work struct {
	file
	entry    *entry
	wanted   []Object
	applied  map[int]bool // of wanted
	problems []error
	attempts []error // what failed in the last pass over the objects
	// unrecorded says that its objects could not be put on record, and are not applied.
	unrecorded bool
	// unknown says that an object's kind is not known: what it may stand for is not removed.
	unknown bool
}

func (w *work) fail(err error) { w.problems = append(w.problems, err) }

// sync makes the cluster what the files say, as far as it can. It says whether a file is being
// written, and whether something failed.
func (k *Keeper) sync(ctx context.Context) (busy, failed bool) {
	if err := k.seed(ctx); err != nil {
		k.tell(nil, err)
		return false, true
	}
	c, err := k.folder.scan()
	if err != nil {
		k.tell(nil, err)
		return false, true
	}
	all := k.share(c)
	for _, w := range all {
		k.enter(ctx, w)
	}
	k.applyAll(ctx, all)
	for _, w := range all {
		k.prune(ctx, w)
	}
	gone := errors.Join(k.skip(ctx, c), k.removeGone(ctx, c))
	for _, w := range all {
		k.finish(ctx, w)
		failed = failed || len(w.problems) > 0
	}
	if ctx.Err() != nil {
		return false, false
	}
	k.tell(all, errors.Join(c.problem, gone))
	return c.busy, failed || gone != nil
}

// share says which file has which object: of two that have the same, the first.
func (k *Keeper) share(c contents) []*work {
	var all []*work
	owners := map[string]string{}
	for _, f := range c.files {
		if c.skips[f.name] {
			continue
		}
		w := &work{file: f, applied: map[int]bool{}}
		if f.err != nil {
			w.fail(f.err)
		}
		for _, o := range f.objects {
			ref := objects.ReferenceTo(o.Unstructured)
			group, _, _ := strings.Cut(ref.APIVersion, "/")
			key := strings.Join([]string{group, ref.Kind, ref.Namespace, ref.Name}, " ")
			if first, ok := owners[key]; ok {
				w.fail(fmt.Errorf("%s: %s is in %s too, which has it", o.Place, title(o.Unstructured), first))
				continue
			}
			owners[key] = f.name
			w.wanted = append(w.wanted, o)
		}
		all = append(all, w)
	}
	return all
}

// skip takes note of the files that nothing is done for.
func (k *Keeper) skip(ctx context.Context, c contents) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.skips)) {
		r := k.records[name]
		if r == nil || k.told[name] == stateSkipped {
			continue
		}
		next := *r
		next.Status.State, next.Status.Message = stateSkipped, ""
		if err := k.write(ctx, &next); err != nil {
			errs = append(errs, fmt.Errorf("%s: record that it is skipped: %w", name, err))
			continue
		}
		k.records[name], k.told[name] = &next, stateSkipped
		k.opts.Logger.Info("a manifest is skipped; its objects stay as they are", "file", name)
	}
	return errors.Join(errs...)
}

// enter puts what is about to be applied on record.
func (k *Keeper) enter(ctx context.Context, w *work) {
	w.entry = k.records[w.name]
	if w.entry == nil {
		w.entry = &entry{Spec: spec{File: w.name, Node: k.opts.Node}, Status: status{State: stateFailed}}
	}
	next := *w.entry
	next.Status.Objects = slices.Clone(next.Status.Objects)
	for _, o := range w.wanted {
		if ref := objects.ReferenceTo(o.Unstructured); !slices.Contains(next.Status.Objects, ref) {
			next.Status.Objects = append(next.Status.Objects, ref)
		}
	}
	if len(next.Status.Objects) == len(w.entry.Status.Objects) {
		return
	}
	if err := k.write(ctx, &next); err != nil {
		w.fail(fmt.Errorf("%s: record its objects: %w", w.name, err))
		w.wanted, w.unrecorded = nil, true
		return
	}
	w.entry = &next
	k.records[w.name] = w.entry
}

// applyAll applies the files' objects. As long as objects of unknown kinds are left, and others come
// up, it tries again: a definition may be in a later file.
func (k *Keeper) applyAll(ctx context.Context, all []*work) {
	for progress, unknown := true, true; progress && unknown && ctx.Err() == nil; {
		progress, unknown = false, false
		for _, w := range all {
			w.attempts, w.unknown = nil, false
			for i, o := range w.wanted {
				if w.applied[i] {
					continue
				}
				err := k.apply(ctx, w, o)
				switch {
				case err == nil:
					w.applied[i], progress = true, true
				case meta.IsNoMatchError(err):
					w.unknown, unknown = true, true
					w.attempts = append(w.attempts, fmt.Errorf("%s: %w: is its CustomResourceDefinition in a file?", o.Place, err))
				default:
					w.attempts = append(w.attempts, fmt.Errorf("%s: %w", o.Place, err))
				}
			}
		}
	}
	for _, w := range all {
		w.problems = append(w.problems, w.attempts...)
	}
}

// apply applies one object, and waits until the API serves what it defines.
func (k *Keeper) apply(ctx context.Context, w *work, o Object) error {
	out := o.DeepCopy()
	labels, notes := out.GetLabels(), out.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if notes == nil {
		notes = map[string]string{}
	}
	labels[label], notes[fileNote] = w.id, w.name
	out.SetLabels(labels)
	out.SetAnnotations(notes)
	if err := k.free(ctx, out); err != nil {
		return err
	}
	if err := k.objects.Apply(ctx, out); err != nil {
		return err
	}
	if !objects.IsDefinition(out) || k.checked[servedMark+out.GetName()] {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, servedPatience)
	defer cancel()
	if err := objects.AwaitServed(ctx, k.dynamic, out); err != nil {
		return fmt.Errorf("wait until the API serves %s: %w", out.GetName(), err)
	}
	k.checked[servedMark+out.GetName()] = true
	return nil
}

const servedMark = "served "

// free refuses an object that a component has: two would change it in turns for ever.
func (k *Keeper) free(ctx context.Context, o *unstructured.Unstructured) error {
	key, err := k.objects.KeyOf(objects.ReferenceTo(o))
	if err != nil {
		return fmt.Errorf("apply %s: %w", title(o), err)
	}
	mark := fmt.Sprint(key)
	if k.checked[mark] {
		return nil
	}
	var client dynamic.ResourceInterface = k.dynamic.Resource(key.Resource)
	if key.Namespace != "" {
		client = k.dynamic.Resource(key.Resource).Namespace(key.Namespace)
	}
	there, err := client.Get(ctx, key.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("apply %s: %w", title(o), err)
	}
	if err == nil {
		if id := there.GetLabels()[componentLabel]; id != "" {
			return fmt.Errorf("apply %s: it belongs to component %s: configure that, or disable it", title(o), id)
		}
	}
	k.checked[mark] = true
	return nil
}

// prune removes what has left a file.
func (k *Keeper) prune(ctx context.Context, w *work) {
	if w.err != nil || w.busy || w.unknown || w.unrecorded || ctx.Err() != nil {
		return
	}
	wanted := map[objects.Key]bool{}
	var keep []nodestatus.ObjectReference
	for _, o := range w.wanted {
		ref := objects.ReferenceTo(o.Unstructured)
		key, err := k.objects.KeyOf(ref)
		if err != nil {
			return // and is a problem of it already
		}
		wanted[key] = true
		keep = append(keep, ref)
	}
	left, err := k.remove(ctx, w.id, w.entry.Status.Objects, wanted)
	if err != nil {
		w.fail(fmt.Errorf("%s: %w", w.name, err))
	}
	next := *w.entry
	next.Status.Objects = append(keep, left...)
	w.entry = &next
}

// remove removes the objects of a file that are not wanted any more.
func (k *Keeper) remove(ctx context.Context, id string, refs []nodestatus.ObjectReference, wanted map[objects.Key]bool) (left []nodestatus.ObjectReference, err error) {
	var drop []nodestatus.ObjectReference
	for _, ref := range refs {
		// The same object by another version of its kind, or with its namespace spelt out, stays.
		key, err := k.objects.KeyOf(ref)
		if err == nil && wanted[key] || err == nil && k.otherVersion(key, wanted) {
			continue
		}
		drop = append(drop, ref)
		if err == nil {
			delete(k.checked, fmt.Sprint(key))
			delete(k.checked, servedMark+key.Name)
		}
	}
	return k.objects.Remove(ctx, drop, func(ctx context.Context, o *unstructured.Unstructured) (bool, error) {
		if o.GetLabels()[label] != id { // another file's by now, or somebody's who took the label off
			return false, nil
		}
		return true, k.unused(ctx, o)
	})
}

func (k *Keeper) otherVersion(key objects.Key, wanted map[objects.Key]bool) bool {
	for other := range wanted {
		if other.Resource.GroupResource() == key.Resource.GroupResource() && other.Namespace == key.Namespace && other.Name == key.Name {
			return true
		}
	}
	return false
}

// unused refuses to remove a definition of which there are objects: they would go with it.
func (k *Keeper) unused(ctx context.Context, o *unstructured.Unstructured) error {
	if !objects.IsDefinition(o) {
		return nil
	}
	for _, served := range objects.Served(o) {
		list, err := k.metadata.Resource(served).List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil && len(list.Items) > 0 {
			return fmt.Errorf("there are objects of this kind, such as %s, which would go with it: delete them first", list.Items[0].Name)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// removeGone removes the objects of files that are not there any more.
func (k *Keeper) removeGone(ctx context.Context, c contents) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(k.records)) {
		there := slices.ContainsFunc(c.files, func(f file) bool { return f.name == name })
		if there || c.skips[name] || c.problem != nil || ctx.Err() != nil {
			continue
		}
		r := k.records[name]
		left, err := k.remove(ctx, idOf(name), r.Status.Objects, nil)
		r.Status.Objects = left
		if err == nil {
			err = k.drop(ctx, r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s has gone: %w", name, err))
			continue
		}
		delete(k.records, name)
		delete(k.told, name)
		k.opts.Logger.Info("the objects of a manifest that has gone were removed", "file", name)
	}
	return errors.Join(errs...)
}
