package ports

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

const suite = "K3M_PORTS_TEST_SUITE"

// The tests run in a network namespace of their own, with the node's address nodeIP on its
// loopback interface.
func TestMain(m *testing.M) {
	if os.Getenv(suite) != "" || os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // go test's own timeout ends it
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Args[0] = os.Args[0]
	again.Env = append(os.Environ(), suite+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := again.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		os.Exit(failed.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the tests in a network namespace of their own:", err)
		os.Exit(1)
	}
}

const (
	nodeIP  = "198.51.100.7"
	gateway = "10.42.0.1"
)

// host makes the addresses of a node.
func host(t *testing.T) {
	t.Helper()
	if os.Getenv(suite) == "" {
		t.Skip("needs root, for a network namespace")
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{nodeIP, gateway} {
		addr, err := netlink.ParseAddr(a + "/32")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrReplace(lo, addr); err != nil {
			t.Fatal(err)
		}
	}
}
