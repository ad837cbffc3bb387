package containerd

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// health is how the component tells its host how it fares; *sdk.Host is one.
type health interface {
	Ready()
	Degraded(reason string)
}

// troubles are what an operator should mend while the runtime serves. They are reported as
// one reason, sorted by their subjects, in `k3m status` and as Events. Its methods may be
// called by several goroutines at once.
type troubles struct {
	mu      sync.Mutex
	health  health // nil before the component was ready
	reasons map[string]string
}

// maxTroubles is how many are told; the others are counted.
const maxTroubles = 5

// begin says that the component is ready, or what is wrong with it already.
func (t *troubles) begin(h health) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.health = h
	h.Ready()
	if len(t.reasons) > 0 {
		t.report()
	}
}

// set says what is wrong with a subject; "" is nothing any more.
func (t *troubles) set(subject, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reasons[subject] == reason {
		return
	}
	if t.reasons == nil {
		t.reasons = map[string]string{}
	}
	t.reasons[subject] = reason
	if reason == "" {
		delete(t.reasons, subject)
	}
	if t.health != nil {
		t.report()
	}
}

// has tells whether something is wrong with a subject.
func (t *troubles) has(subject string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reasons[subject] != ""
}

// keep forgets the subjects that begin with prefix and are not kept.
func (t *troubles) keep(prefix string, kept func(subject string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.reasons)
	maps.DeleteFunc(t.reasons, func(subject, _ string) bool {
		return strings.HasPrefix(subject, prefix) && !kept(strings.TrimPrefix(subject, prefix))
	})
	if t.health != nil && len(t.reasons) != before {
		t.report()
	}
}

func (t *troubles) report() {
	if len(t.reasons) == 0 {
		t.health.Ready()
		return
	}
	subjects := slices.Sorted(maps.Keys(t.reasons))
	var told []string
	for _, s := range subjects[:min(len(subjects), maxTroubles)] {
		told = append(told, t.reasons[s])
	}
	if more := len(subjects) - maxTroubles; more > 0 {
		told = append(told, "and more")
	}
	t.health.Degraded(strings.Join(told, "; "))
}
