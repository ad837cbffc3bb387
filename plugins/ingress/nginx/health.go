package nginx

import (
	"slices"
	"sync"
)

// The parts of the component that may be ill, the worst first: one is told.
const (
	partExecutable = iota // there is no nginx
	partProcess           // nginx died
	partConfig            // nginx refuses the configuration, or could not be asked
	partHostPorts         // an address of the node could not be bound
	partPublished         // the Service has no address here
	parts
)

// health sums up how the component fares.
type health struct {
	ready    func()
	degraded func(string)

	mu      sync.Mutex
	serving bool
	ills    [parts]string
}

// set says what is wrong with a part; empty for nothing.
func (h *health) set(part int, ill string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ills[part] = ill
	h.tell()
}

// serves says that nginx has its first configuration: the component is ready, if it is not
// ill.
func (h *health) serves() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.serving = true
	h.tell()
}

func (h *health) tell() {
	if at := slices.IndexFunc(h.ills[:], func(ill string) bool { return ill != "" }); at >= 0 {
		h.degraded(h.ills[at])
		return
	}
	if h.serving {
		h.ready()
	}
}
