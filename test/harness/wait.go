package harness

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// Object is a pointer to a Kubernetes object.
type Object interface {
	runtime.Object
	metav1.Object
}

// Source is a typed client of one resource.
type Source[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// Wait watches the object with a name until done says true or ctx ends. It bears that the
// object is not there yet, and that the API goes away meanwhile. What done says of the
// object is quoted when the wait is in vain.
func Wait[O Object, L runtime.Object](ctx context.Context, src Source[L], name string, done func(O) (bool, string)) error {
	_, err := waitFor(ctx, src, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}, done)
	return err
}

// WaitAny is Wait for the first object that matches a label selector and is done; it
// gives that object.
func WaitAny[O Object, L runtime.Object](ctx context.Context, src Source[L], labels string, done func(O) (bool, string)) (O, error) {
	return waitFor(ctx, src, metav1.ListOptions{LabelSelector: labels}, done)
}

// WaitGone waits until no object has the name.
func WaitGone[L runtime.Object](ctx context.Context, src Source[L], name string) error {
	selector := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
	for {
		list, err := src.List(ctx, selector)
		if err == nil {
			if meta.LenList(list) == 0 {
				return nil
			}
			err = follow(ctx, src, selector, list, func(e watch.Event) bool { return e.Type == watch.Deleted })
			if err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait until %s is gone: %w", name, context.Cause(ctx))
		}
		pause(ctx)
	}
}

func waitFor[O Object, L runtime.Object](ctx context.Context, src Source[L], selector metav1.ListOptions, done func(O) (bool, string)) (O, error) {
	var found O
	last := "there is no such object"
	check := func(o runtime.Object) bool {
		object, ok := o.(O)
		if !ok {
			return false
		}
		var finished bool
		if finished, last = done(object); finished {
			found = object
		}
		return finished
	}
	for {
		list, err := src.List(ctx, selector)
		if err == nil {
			items, _ := meta.ExtractList(list)
			for _, item := range items {
				if check(item) {
					return found, nil
				}
			}
			err = follow(ctx, src, selector, list, func(e watch.Event) bool {
				return (e.Type == watch.Added || e.Type == watch.Modified) && check(e.Object)
			})
			if err == nil {
				return found, nil
			}
		}
		if ctx.Err() != nil {
			return found, fmt.Errorf("%w: %s", context.Cause(ctx), last)
		}
		last = err.Error()
		pause(ctx)
	}
}

// follow watches from a list on until an event is the one, and then gives nil.
func follow[L runtime.Object](ctx context.Context, src Source[L], selector metav1.ListOptions, list L, is func(watch.Event) bool) error {
	m, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	selector.ResourceVersion = m.GetResourceVersion()
	w, err := src.Watch(ctx, selector)
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("the watch ended")
			}
			if is(e) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause keeps a client that meets a dead API from asking in a tight loop.
func pause(ctx context.Context) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
	}
}

// WaitAll watches all objects that match a label selector until done says true of them
// together. It is for small numbers: they are listed again at each change.
func WaitAll[O Object, L runtime.Object](ctx context.Context, src Source[L], labels string, done func([]O) (bool, string)) error {
	selector := metav1.ListOptions{LabelSelector: labels}
	last := ""
	for {
		list, err := src.List(ctx, selector)
		if err == nil {
			items, _ := meta.ExtractList(list)
			objects := make([]O, 0, len(items))
			for _, item := range items {
				if o, ok := item.(O); ok {
					objects = append(objects, o)
				}
			}
			var finished bool
			if finished, last = done(objects); finished {
				return nil
			}
			if err = follow(ctx, src, selector, list, func(watch.Event) bool { return true }); err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %s", context.Cause(ctx), last)
		}
		last = err.Error()
		pause(ctx)
	}
}
