package launch

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/k3m-io/k3m/components/cgroup"
	"golang.org/x/sys/unix"
)

// execSpec becomes the plugin; it returns only on failure.
//
// Credentials belong to a thread in Linux. All is done on one locked thread, whose
// credentials are those of the process after the execution, which ends all others.
func execSpec(spec io.Reader) error {
	runtime.LockOSThread()
	for _, fd := range []int{SpecFD, StatusFD} {
		unix.CloseOnExec(fd)
	}
	var s Spec
	data, err := io.ReadAll(io.LimitReader(spec, maxSpec+1))
	if err != nil {
		return fmt.Errorf("read launch spec: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("read launch spec: %w", err)
	}
	// First of all, so that nothing that follows can escape the group's end.
	if err := cgroup.Group(s.Cgroup).Join(); err != nil {
		return err
	}
	file, err := openExecutable(s.Path, s.SHA256)
	if err != nil {
		return err
	}
	if err := setLimits(s.Limits); err != nil {
		return err
	}
	unix.Umask(s.Umask)
	if !s.KeepPrivileges {
		if err := dropPrivileges(s); err != nil {
			return err
		}
	}
	// What a bug may have left open must not reach the plugin: only 0, 1, 2 and the
	// lifeline stay.
	if err := unix.CloseRange(LifelineFD+1, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	return execve(file, s.Args, os.Environ())
}

// openExecutable returns an open descriptor of a file that it has checked: what is
// executed later is that very file, whatever is at the path by then.
func openExecutable(path, digest string) (*os.File, error) {
	want, err := hex.DecodeString(digest)
	if err != nil || len(want) != sha256.Size {
		return nil, refusal{fmt.Errorf("the digest on record for %s is not a SHA-256: %q", path, digest)}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, refusal{fmt.Errorf("open plugin: %w", &os.PathError{Op: "open", Path: path, Err: err})}
	}
	file := os.NewFile(uintptr(fd), path)
	if err := checkFile(file, want); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func checkFile(file *os.File, want []byte) error {
	st, err := file.Stat()
	if err != nil {
		return fmt.Errorf("check plugin: %w", err)
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	switch {
	case !st.Mode().IsRegular():
		return refusal{fmt.Errorf("%s is not a regular file", file.Name())}
	case st.Mode().Perm()&0o022 != 0 || owner != 0 && int(owner) != os.Geteuid():
		return refusal{fmt.Errorf("%s can be changed by other users (owner %d, mode %v)", file.Name(), owner, st.Mode().Perm())}
	}
	var magic [4]byte
	// A script would be read by its interpreter from its path, after the check.
	if _, err := file.ReadAt(magic[:], 0); err != nil || string(magic[:]) != "\x7fELF" {
		return refusal{fmt.Errorf("%s is not an ELF executable; a plugin can't be a script", file.Name())}
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("check plugin: %w", err)
	}
	if got := sum.Sum(nil); subtle.ConstantTimeCompare(got, want) != 1 {
		return refusal{fmt.Errorf("%s has changed: its SHA-256 is %x, the one on record is %x", file.Name(), got, want)}
	}
	return nil
}

func setLimits(limits []Limit) error {
	for _, l := range limits {
		var now unix.Rlimit
		if err := unix.Prlimit(0, l.Resource, nil, &now); err != nil {
			return fmt.Errorf("read resource limit %d: %w", l.Resource, err)
		}
		now.Cur = min(l.Value, now.Max)
		if !l.SoftOnly {
			now.Max = now.Cur
		}
		if err := unix.Prlimit(0, l.Resource, &now, nil); err != nil {
			return fmt.Errorf("set resource limit %d to %d: %w", l.Resource, l.Value, err)
		}
	}
	return nil
}

// execve executes an open file. os/exec and syscall.Exec want a path.
func execve(file *os.File, args, env []string) error {
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return fmt.Errorf("execute plugin %s: %w", file.Name(), err)
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return fmt.Errorf("execute plugin %s: %w", file.Name(), err)
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, file.Fd(), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	runtime.KeepAlive(file)
	return refusal{fmt.Errorf("execute plugin %s: %w", file.Name(), errno)}
}
