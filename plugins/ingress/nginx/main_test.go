package nginx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
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
	case os.Getuid() != 0:
		os.Exit(m.Run())
	case os.Getenv(isolated) != "":
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "isolate the tests:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // the parent of Pdeathsig is a thread
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), isolated+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "isolate the tests:", err)
		os.Exit(1)
	}
}

// prepare gives the namespace a loopback interface, and the default route without which
// an API server finds no address of its own.
func prepare() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	lan := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}
	address, err := netlink.ParseAddr("192.0.2.2/24")
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
