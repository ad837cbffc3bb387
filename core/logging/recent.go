package logging

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
)

// recentBytes bounds what is kept of each origin; recentOrigins how many there are.
const (
	recentBytes   = 128 << 10
	recentOrigins = 64
)

// Recent keeps the last lines of each origin in memory: what `k3m component logs` shows
// costs no second write to a disk that may be a flash card.
type Recent struct {
	mu      sync.Mutex
	origins map[string]*ring
}

// ring is a queue of lines. Each has a number, so that a reader knows where it was.
type ring struct {
	lines [][]byte
	bytes int
	first int           // number of lines[0]
	grown chan struct{} // closed at the next line
}

func newRecent() *Recent { return &Recent{origins: map[string]*ring{}} }

func (r *Recent) of(origin string) *ring {
	g := r.origins[origin]
	if g == nil {
		g = &ring{grown: make(chan struct{})}
		if len(r.origins) < recentOrigins {
			r.origins[origin] = g
		}
	}
	return g
}

// add keeps a copy of the line.
func (r *Recent) add(origin string, line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.of(origin)
	g.lines, g.bytes = append(g.lines, slices.Clone(line)), g.bytes+len(line)
	for g.bytes > recentBytes && len(g.lines) > 1 {
		g.bytes -= len(g.lines[0])
		g.lines[0] = nil
		g.lines, g.first = g.lines[1:], g.first+1
	}
	close(g.grown)
	g.grown = make(chan struct{})
}

// Origins are those that have written something, sorted.
func (r *Recent) Origins() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.origins))
}

// Lines gives the origin's last lines that are kept, the oldest first, each with its new line;
// at most tail of them, or all when tail is negative. With follow it goes on with those to come
// until ctx ends. A reader who is so slow that lines are dropped before they are read misses
// those.
func (r *Recent) Lines(ctx context.Context, origin string, tail int, follow bool) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		next := -1
		for {
			r.mu.Lock()
			g := r.of(origin)
			if next < 0 && tail >= 0 {
				next = g.first + max(0, len(g.lines)-tail)
			}
			lines := slices.Clone(g.lines[min(len(g.lines), max(0, next-g.first)):])
			next = g.first + len(g.lines)
			grown := g.grown
			r.mu.Unlock()
			for _, line := range lines {
				if !yield(line) {
					return
				}
			}
			if !follow {
				return
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return
			}
		}
	}
}
