package components

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

// availableCapabilities splits capability names into the numbers of those that this
// process can hand on, and the names of those that the host keeps from it: the bounding
// set of a container often lacks CAP_SYS_RESOURCE, for one.
func availableCapabilities(names []string) (have []int, lack []string, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, nil, fmt.Errorf("read own capabilities: %w", err)
	}
	permitted, err1 := capabilityMask(string(status), "CapPrm:")
	bounding, err2 := capabilityMask(string(status), "CapBnd:")
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, fmt.Errorf("read own capabilities: %w", err)
	}
	for _, name := range names {
		number := slices.Index(sdk.Capabilities(), name)
		if number >= 0 && permitted&bounding&(1<<number) != 0 {
			have = append(have, number)
		} else {
			lack = append(lack, name)
		}
	}
	return have, lack, nil
}

// capabilityMask reads a field of /proc/<pid>/status, proc(5).
func capabilityMask(status, field string) (uint64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			return strconv.ParseUint(strings.TrimSpace(rest), 16, 64)
		}
	}
	return 0, fmt.Errorf("no %s in /proc/self/status", field)
}
