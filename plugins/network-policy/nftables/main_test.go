package nftables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/k3m-io/k3m/sdk"
)

// roleVariable says what a process of this test executable is: unset, what the go
// command started; "suite", the tests; "hold", a process that keeps a network namespace
// alive until its input ends.
const roleVariable = "K3M_NETPOL_TEST_ROLE"

// componentID is the argument with which the executable is the plugin, as k3m's multi-call
// one is.
const componentID = "network-policy.nftables"

// TestMain runs all tests in a network namespace of their own, which is the node: with it
// all that they make goes away.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == componentID {
		sdk.Serve(New())
		os.Exit(0)
	}
	switch os.Getenv(roleVariable) {
	case "hold":
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	case "suite":
		os.Exit(m.Run())
	}
	if os.Getuid() != 0 {
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
