package ports

import (
	"net/netip"
	"path/filepath"
)

// Holder is the process that has a port.
type Holder struct {
	// Name and PID are the process's; PID is 0 for a socket of the kernel's.
	Name string
	PID  int
}

// String is "nginx (pid 4711)" or "the kernel".
func (h Holder) String() string { return h.text() }

// HolderOf finds out who listens on a port, "TCP" or "UDP", at an address of this machine: at
// that very one or at all of them. The zero address stands for any. proc is /proc.
func HolderOf(proc, protocol string, address netip.Addr, number uint16) (Holder, bool, error) {
	sockets, err := listening(filepath.Join(proc, "self", "net"), protocol)
	if err != nil {
		return Holder{}, false, err
	}
	for _, s := range sockets {
		local := s.local.Addr()
		if s.local.Port() != number || address.IsValid() && !address.IsUnspecified() && !local.IsUnspecified() && local != address {
			continue
		}
		return holder(proc, s.inode), true, nil
	}
	return Holder{}, false, nil
}
