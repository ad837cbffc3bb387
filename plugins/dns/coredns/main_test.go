package coredns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/k3m-io/k3m/sdk"
)

// roleVariable is set in the process that runs the tests.
const roleVariable = "K3M_COREDNS_TEST_ROLE"

// The addresses of the tests' network namespace: the pod gateways, another address of
// the host, and where the tests' upstreams listen.
const (
	gateway4, gateway6 = "10.42.0.1", "fd42::1"
	lan4               = "192.0.2.1"
	upstreamA          = "198.51.100.1"
	upstreamB          = "198.51.100.2"
	clusterDNS         = "10.43.0.10"
)

// TestMain runs all tests in a network namespace of their own, where port 53 is free.
//
// Started with the component's ID as its argument, the executable is the plugin too, as
// k3m's multi-call one is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "dns.coredns" {
		sdk.Serve(New())
		os.Exit(0)
	}
	if os.Getenv(roleVariable) != "" {
		if err := addAddresses(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	fuzzing := slices.ContainsFunc(os.Args, func(arg string) bool {
		return strings.HasPrefix(arg, "-test.fuzz=") || arg == "-test.fuzzworker"
	})
	if os.Getuid() != 0 || fuzzing { // whose workers hold pipes
		os.Exit(m.Run()) // those that need a network skip themselves
	}
	suite := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	suite.Stdin, suite.Stdout, suite.Stderr = os.Stdin, os.Stdout, os.Stderr
	suite.Env = append(os.Environ(), roleVariable+"=suite")
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

func addAddresses() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, prefix := range []string{gateway4 + "/32", gateway6 + "/128", lan4 + "/32", upstreamA + "/32", upstreamB + "/32"} {
		addr, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("add %s: %w", prefix, err)
		}
	}
	return nil
}

// needNetwork skips a test that is not in the namespace.
func needNetwork(t testing.TB) {
	t.Helper()
	if os.Getenv(roleVariable) == "" {
		t.Skip("needs root, for a network namespace of its own")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
