package nginx

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The ports on a pod gateway. They are nobody's to know: the Service leads there.
const (
	internalHTTP  = 8081
	internalHTTPS = 8444
)

// backlog is asked for; the kernel bounds it by net.core.somaxconn.
const backlog = 4096

// sockets are what nginx listens on. The component opens them and hands them down the way
// nginx itself does when its executable is replaced: they outlive an nginx that dies, so
// that no client is refused, nginx need not have the capability to bind low ports, and an
// address that is not there for a moment (a bridge that is made anew) can be bound.
type sockets struct {
	http, https []netip.AddrPort
	files       []*os.File
}

// listen opens the sockets.
func listen(http, https []netip.AddrPort) (*sockets, error) {
	s := &sockets{http: http, https: https}
	for _, address := range append(append([]netip.AddrPort{}, http...), https...) {
		file, err := listenOn(address)
		if err != nil {
			s.close()
			return nil, err
		}
		s.files = append(s.files, file)
	}
	return s, nil
}

// listenOn opens one socket. It is not Go's, which would wake for each connection.
func listenOn(address netip.AddrPort) (*os.File, error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(address.Port()), Addr: address.Addr().As16()})
	if address.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		// The IPv4 option works on both families.
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1))
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, listenError{address, err}
	}
	// Made while the socket blocks, so that Go leaves it alone; nginx wants it not to.
	file := os.NewFile(uintptr(fd), address.String())
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return file, nil
}

// listenError is an address that could not be bound.
type listenError struct {
	address netip.AddrPort
	err     error
}

// Error says who may hold the address.
func (e listenError) Error() string {
	hint := ""
	if errors.Is(e.err, unix.EADDRINUSE) {
		hint = fmt.Sprintf(" (see who has it: ss -ltnp 'sport = :%d')", e.address.Port())
	}
	return fmt.Sprintf("listen on %s: %v%s", e.address, e.err, hint)
}

func (e listenError) Unwrap() error { return e.err }

// environment hands the sockets down; firstFD is the number that the first has there.
func (s *sockets) environment(firstFD int) string {
	var b strings.Builder
	b.WriteString("NGINX=")
	for i := range s.files {
		b.WriteString(strconv.Itoa(firstFD+i) + ";")
	}
	return b.String()
}

func (s *sockets) close() {
	for _, file := range s.files {
		_ = file.Close()
	}
}
