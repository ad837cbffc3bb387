package nginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/sdk"
)

// isolated says that the test process runs in a network namespace of its own, where the
// ports are free.
const isolated = "K3M_TEST_ISOLATED"

// TestMain: started with the component's ID as its argument, the executable is the
// plugin, as k3m's multi-call one is.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == id:
		sdk.Serve(New())
		os.Exit(0)
	case os.Getenv(isolated) != "":
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "isolate the tests:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case os.Getuid() != 0:
		os.Exit(m.Run())
	}
	os.Exit(isolate())
}

// user is nobody's: the component has one of its own, and nginx behaves differently as root.
const user = 64123

// isolate runs the tests in a network namespace, as a user with the capabilities to make
// its interfaces and to bind low ports.
func isolate() int {
	fail := func(err error) int { fmt.Fprintln(os.Stderr, "isolate the tests:", err); return 1 }
	// go test's own folder is root's alone.
	dir, err := os.MkdirTemp("", "k3m-nginx")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	executable := filepath.Join(dir, "nginx.test")
	if err := errors.Join(os.Chmod(dir, 0o755), copyFile("/proc/self/exe", executable)); err != nil { //nolint:gosec // others execute it
		return fail(err)
	}
	runtime.LockOSThread() // the parent of Pdeathsig is a thread
	// What the tests read, for go test's cache of results, would go into its own folder, too.
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool { return strings.HasPrefix(a, "-test.testlogfile=") })
	cmd := exec.CommandContext(context.Background(), executable, args...)
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
		Credential:  &syscall.Credential{Uid: user, Gid: user},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE}}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return exit.ExitCode()
	} else if err != nil {
		return fail(err)
	}
	return 0
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

// prepare gives the namespace a loopback interface, and the default route without which
// an API server finds no address of its own.
func prepare() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	lan := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}
	address, err := netlink.ParseAddr(nodeIP + "/24")
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return netlink.LinkSetUp(lo) },
		func() error { return netlink.LinkAdd(lan) },
		func() error { return netlink.AddrAdd(lan, address) },
		func() error { return netlink.LinkSetUp(lan) },
		func() error {
			return netlink.RouteAdd(&netlink.Route{LinkIndex: lan.Index, Gw: net.IPv4(192, 0, 2, 1)})
		},
		func() error { // pods: an EndpointSlice takes no loopback addresses
			return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
				Scope: netlink.SCOPE_HOST, Dst: &net.IPNet{IP: net.IPv4(10, 42, 0, 0), Mask: net.CIDRMask(16, 32)}})
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// needNetwork skips a test that would listen on the machine's own addresses.
func needNetwork(t *testing.T) {
	t.Helper()
	if os.Getenv(isolated) == "" {
		t.Skip("needs root: it makes a network namespace")
	}
}
