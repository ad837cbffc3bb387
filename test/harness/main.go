package harness

import (
	"fmt"
	"os"
)

// The harness runs its own executable again for two other roles, told by argv[0].
const (
	initRole   = "k3m-test-host"
	keeperRole = "k3m-test-keeper"
)

// Roles must be the first call of a program that opens a Lab. In the first process of a
// test host and in the keeper it does that work and never returns; else it does nothing.
func Roles() {
	switch os.Args[0] {
	case initRole:
		exit(runInit())
	case keeperRole:
		exit(runKeeper())
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Main is the TestMain of a package whose tests need test hosts: it takes on the
// harness's other roles, sees that this machine can run test hosts and that there is a
// dist/k3m, runs the tests, and returns the exit code.
//
// Without root the tests are skipped with a word about it, unless K3M_E2E=1 says that
// they were asked for.
func Main(run func() int) int {
	Roles()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the end-to-end tests make network namespaces and containers and need root: run `sudo make test`")
		if os.Getenv("K3M_E2E") == "1" {
			return 1
		}
		return 0
	}
	if _, err := Dist(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}
