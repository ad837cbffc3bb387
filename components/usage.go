package components

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/cgroups"
)

// Usage is what a component uses at a moment.
type Usage struct {
	ID    string `json:"id"`
	State State  `json:"state"`
	// Processes counts the component's, children included.
	Processes int `json:"processes"`
	// CPU is the processor time that the component's processes have used since its cgroup was
	// made; Time is when that was read. The difference of two is the load between them.
	CPU  time.Duration `json:"cpuNanoseconds"`
	Time time.Time     `json:"time"`
	// PSS is the memory of the processes in bytes, with what they share with others divided
	// among all that share it (proc_pid_smaps_rollup(5)).
	PSS      int64 `json:"pssBytes"`
	Restarts int   `json:"restarts"`
}

// Usage reads what the components use, in the order of Status. A component without a process,
// or on a host without cgroups, uses nothing.
func (s *Supervisor) Usage() ([]Usage, error) {
	var all []Usage
	for _, st := range s.Status() {
		u := Usage{ID: st.ID, State: st.State, Restarts: st.Restarts, Time: time.Now()}
		if s.opts.CgroupParent != "" {
			if err := s.measure(&u); err != nil {
				return nil, fmt.Errorf("measure component %s: %w", st.ID, err)
			}
		}
		all = append(all, u)
	}
	return all, nil
}

func (s *Supervisor) measure(u *Usage) error {
	group, err := groupOf(s.opts.CgroupParent, u.ID)
	if err != nil || len(group) == 0 {
		return err
	}
	pids, err := group.Procs()
	if err != nil || len(pids) == 0 {
		return err
	}
	u.Processes = len(pids)
	for _, pid := range pids {
		u.PSS += pss(pid)
	}
	manager, err := managerOf(group, &cgroups.Resources{SkipDevices: true})
	if err != nil {
		return err
	}
	stats, err := manager.GetStats()
	if err != nil {
		return nil //nolint:nilerr // the group went away while it was read, with its last process
	}
	u.CPU, u.Time = time.Duration(stats.CpuStats.CpuUsage.TotalUsage), time.Now()
	return nil
}

// pss is the process's share of memory; 0 for one that has ended meanwhile.
func pss(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			return kib << 10
		}
	}
	return 0
}
