package metricsserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/k3m-io/k3m/sdk"
)

// isolated says that the test process runs in a network namespace of its own.
const isolated = "K3M_METRICS_SERVER_TEST_ISOLATED"

// gateway is the node's pod gateway in that namespace. An endpoint of a Service can't have a
// loopback address.
const gateway = "10.42.0.1"

// TestMain runs the tests of root in a network namespace of their own, with which the
// gateway goes away.
//
// Started with the component's ID as its argument, the executable is the plugin too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "metrics-server.metrics-server" {
		sdk.Serve(New())
		os.Exit(0)
	}
	if os.Getuid() != 0 {
		os.Exit(m.Run()) // those that need the network skip themselves
	}
	if os.Getenv(isolated) != "" {
		if err := addGateway(); err != nil {
			fmt.Fprintln(os.Stderr, "make a pod gateway:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	suite := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	suite.Args[0] = os.Args[0]
	suite.Stdin, suite.Stdout, suite.Stderr = os.Stdin, os.Stdout, os.Stderr
	suite.Env = append(os.Environ(), isolated+"=1")
	suite.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := suite.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		os.Exit(failed.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the tests in a network namespace of their own:", err)
		os.Exit(1)
	}
}

func addGateway() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(gateway + "/32")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, address))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
