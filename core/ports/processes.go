package ports

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// unnamed is the holder of a socket that no process has open: the kernel's (vxlan's,
// wireguard's), or that of a process which has just ended.
const unnamed = "the kernel"

// owner names the process that has the socket open, "nginx (pid 4711)".
func owner(proc string, inode uint64) string { return holder(proc, inode).text() }

func (h Holder) text() string {
	if h.PID == 0 {
		return unnamed
	}
	return fmt.Sprintf("%s (pid %d)", h.Name, h.PID)
}

// holder finds the process that has the socket open. It looks at the open files of all
// processes, which is slow: thousands of system calls.
func holder(proc string, inode uint64) Holder {
	want := fmt.Sprintf("socket:[%d]", inode)
	entries, err := os.ReadDir(proc)
	if err != nil {
		return Holder{}
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		// What can't be read has ended meanwhile.
		files, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue
		}
		for _, f := range files {
			if target, err := os.Readlink(filepath.Join(dir, "fd", f.Name())); err == nil && target == want {
				return Holder{Name: processName(dir), PID: pid}
			}
		}
	}
	return Holder{}
}

// processName is the process's own word for itself, at most 15 bytes, without what could
// confuse a reader of it.
func processName(dir string) string {
	raw, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "a process"
	}
	name := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, strings.TrimSuffix(string(raw), "\n"))
	if name == "" {
		return "a process"
	}
	return name
}
