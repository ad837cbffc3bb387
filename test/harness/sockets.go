package harness

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Listener is a socket that takes connections or datagrams in a host.
type Listener struct {
	Network  string // "tcp" or "udp"
	Addr     netip.AddrPort
	Loopback bool
	// Process is the command line of a process that has the socket, empty for the
	// kernel's own.
	Process string
}

// String is "tcp 198.18.0.11:10250".
func (l Listener) String() string { return l.Network + " " + l.Addr.String() }

// AnyAddress is "tcp *:10250".
func (l Listener) AnyAddress() string { return fmt.Sprintf("%s *:%d", l.Network, l.Addr.Port()) }

// Listening lists the host's own listening sockets, those in pods not included.
func (h *Host) Listening(tb TB) []Listener {
	tb.Helper()
	owners := h.socketOwners()
	var found []Listener
	for _, file := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile(h.proc("net/" + file))
		if err != nil {
			tb.Fatalf("%v", err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			const listen, unconnected = "0A", "07"
			if len(f) < 10 || f[3] != listen && f[3] != unconnected {
				continue
			}
			addr, err := parseProcAddr(f[1])
			if err != nil {
				continue // the heading
			}
			found = append(found, Listener{
				Network: strings.TrimSuffix(file, "6"), Addr: addr,
				Loopback: addr.Addr().IsLoopback(), Process: owners[f[9]],
			})
		}
	}
	return found
}

// socketOwners maps socket inodes to command lines.
func (h *Host) socketOwners() map[string]string {
	owners := map[string]string{}
	procs, _ := h.Processes()
	for _, p := range procs {
		dir := h.Path(fmt.Sprintf("/proc/%d/fd", p.Pid))
		for _, fd := range names(dir) {
			if link, err := os.Readlink(filepath.Join(dir, fd)); err == nil {
				if inode, ok := strings.CutPrefix(link, "socket:["); ok {
					owners[strings.TrimSuffix(inode, "]")] = p.Cmdline
				}
			}
		}
	}
	return owners
}

// parseProcAddr reads "0100007F:1F90": 32-bit words in the machine's order (little
// endian on all that k3m runs on), then the port.
func parseProcAddr(s string) (netip.AddrPort, error) {
	text, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("read address %q", s)
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("read address %q", s)
	}
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), err
}
