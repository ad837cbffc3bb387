package components

import (
	"context"
	"slices"
)

// watcher hands status changes to one subscriber, who may be slow.
type watcher struct {
	queue []ComponentStatus // guarded by the supervisor's lock
	wake  chan struct{}
}

// Watch sends the status of all components and then each change, none left out, until
// ctx ends; then it closes the channel.
func (s *Supervisor) Watch(ctx context.Context) <-chan ComponentStatus {
	w := &watcher{wake: make(chan struct{}, 1)}
	w.wake <- struct{}{}
	s.mu.Lock()
	w.queue = s.statuses()
	s.watchers = append(s.watchers, w)
	s.mu.Unlock()
	out := make(chan ComponentStatus)
	go func() {
		defer close(out)
		defer s.unwatch(w)
		for {
			select {
			case <-w.wake:
			case <-ctx.Done():
				return
			}
			s.mu.Lock()
			queue := w.queue
			w.queue = nil
			s.mu.Unlock()
			for _, st := range queue {
				select {
				case out <- st:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

func (s *Supervisor) unwatch(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = slices.DeleteFunc(s.watchers, func(o *watcher) bool { return o == w })
}

// publish tells all that wait and watch of a change. The lock is held.
func (s *Supervisor) publish(st ComponentStatus) {
	for _, w := range s.watchers {
		w.queue = append(w.queue, st)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	s.broadcast()
}
