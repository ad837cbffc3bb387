package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

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
		link, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
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

// needNetwork skips a test that would listen on the machine's own addresses.
func needNetwork(t *testing.T) {
	t.Helper()
	if os.Getenv(isolated) == "" {
		t.Skip("needs root: it makes a network namespace")
	}
}
