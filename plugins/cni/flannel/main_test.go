package flannel

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
const roleVariable = "K3M_FLANNEL_TEST_ROLE"

// carriedVariable is the directory for the CNI executables, which the first test that
// needs them builds.
const carriedVariable = "K3M_FLANNEL_TEST_CARRIED"

// TestMain runs all tests in a network namespace of their own, with which all that they
// make goes away.
//
// Started with the component's ID as its argument, the executable is the plugin too, as
// k3m's multi-call one is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "cni.flannel" {
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
	carried, err := os.MkdirTemp("", "k3m-flannel-cni-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	suite := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	suite.Stdin, suite.Stdout, suite.Stderr = os.Stdin, os.Stdout, os.Stderr
	suite.Env = append(os.Environ(), roleVariable+"=suite", carriedVariable+"="+carried)
	suite.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err = suite.Run()
	_ = os.RemoveAll(carried)
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		os.Exit(failed.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the tests in a network namespace of their own:", err)
		os.Exit(1)
	}
}
