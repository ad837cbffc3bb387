package ports

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// socket is one that takes what comes to an address and port, whoever sends it.
type socket struct {
	local netip.AddrPort
	inode uint64
}

// The kernel's numbers for the states of such sockets (include/net/tcp_states.h); an
// unconnected UDP socket is in the state that TCP calls closed.
const (
	stateListen      = "0A"
	stateUnconnected = "07"
)

// tables are the files of /proc/<pid>/net for each protocol.
var tables = map[string]struct {
	files []string
	state string
	// first: the table begins with the sockets in that state (the kernel's
	// Documentation/networking/proc_net_tcp.rst says so of TCP), so that a node with many
	// connections costs no more than one with few.
	first bool
}{
	"TCP": {files: []string{"tcp", "tcp6"}, state: stateListen, first: true},
	"UDP": {files: []string{"udp", "udp6"}, state: stateUnconnected},
}

// listening gives the sockets of a protocol that listen in the network namespace whose
// /proc/<pid>/net dir is. SCTP's sockets are not looked at: there are none.
func listening(dir, protocol string) ([]socket, error) {
	table := tables[protocol]
	var all []socket
	for _, name := range table.files {
		file, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("look at the node's sockets: %w", err)
		}
		sockets, err := parseTable(file, table.state, table.first)
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("look at the node's sockets: %s: %w", file.Name(), err)
		}
		all = append(all, sockets...)
	}
	return all, nil
}

// parseTable reads the sockets in a state from a table; with first, only as far as the
// table begins with them.
func parseTable(table io.Reader, state string, first bool) ([]socket, error) {
	var sockets []socket
	lines := bufio.NewScanner(table)
	for number := 0; lines.Scan(); number++ {
		if number == 0 {
			continue // the header
		}
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			return nil, fmt.Errorf("line %d has %d fields, want at least 10", number+1, len(fields))
		}
		if fields[3] != state {
			if first {
				break
			}
			continue
		}
		local, err := parseAddress(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number+1, err)
		}
		inode, err := strconv.ParseUint(fields[9], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: inode: %w", number+1, err)
		}
		sockets = append(sockets, socket{local: local, inode: inode})
	}
	return sockets, lines.Err()
}

// parseAddress reads "0100007F:1F90": words of 32 bits in the machine's byte order, and a
// port.
func parseAddress(text string) (netip.AddrPort, error) {
	address, port, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(address)
	if !ok || err != nil || (len(raw) != 4 && len(raw) != 16) {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address and port", text)
	}
	for word := 0; word < len(raw); word += 4 {
		binary.NativeEndian.PutUint32(raw[word:], binary.BigEndian.Uint32(raw[word:]))
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address and port", text)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), nil
}
