package localpath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// confinedRole makes the test executable confine itself and tell what it still can.
const confinedRole = "K3M_LOCAL_PATH_TEST_CONFINED"

// tellConfined prints a line for each thing that is not as it should be.
func tellConfined() {
	// Threads that are there before, and in a system call.
	release, blocked := make(chan struct{}), sync.WaitGroup{}
	var early error
	blocked.Go(func() {
		runtime.LockOSThread()
		<-release
		early = unix.Unshare(unix.CLONE_NEWNS)
	})
	if err := confine(); err != nil {
		fmt.Println(err)
		return
	}
	close(release)
	blocked.Wait()
	dir, err := os.Open("/")
	if err != nil {
		fmt.Println(err)
		return
	}
	const blockSizeOf = 2 // FIGETBSZ, which the file system answers to everybody
	_, ioctlErr := unix.IoctlGetInt(int(dir.Fd()), blockSizeOf)
	for what, err := range map[string]error{
		"unshare in an old thread": early,
		"mount":                    unix.Mount("none", "/nowhere", "tmpfs", 0, ""),
		"unmount":                  unix.Unmount("/nowhere", 0),
		"setns":                    unix.Setns(-1, 0),
		"sethostname":              unix.Sethostname([]byte("x")),
		"exec":                     syscall.Exec("/proc/self/exe", []string{"x"}, nil),
		"fork and exec":            exec.CommandContext(context.Background(), "/proc/self/exe").Run(),
		"clone a namespace": func() error {
			_, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUTS|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			return errno
		}(),
		"quotactl of users": func() error {
			const users = 0
			_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, dir.Fd(), quotaGet<<8&0xffffffff|users, 0, 0, 0, 0)
			return errno
		}(),
	} {
		if !errors.Is(err, unix.EPERM) {
			fmt.Println(what, "is not refused:", err)
		}
	}
	if !errors.Is(ioctlErr, unix.ENOTTY) {
		fmt.Println("an ioctl is not refused:", ioctlErr)
	}
	// What the work needs is still there: new threads, files, removal, the state of quotas.
	var threads sync.WaitGroup
	for range 8 {
		threads.Go(func() { runtime.LockOSThread() })
	}
	threads.Wait()
	base := &base{path: os.Getenv(confinedRole)}
	if err := base.prepare(); err != nil {
		fmt.Println(err)
	}
	staged, err := base.stage("pvc-1")
	if err == nil {
		err = base.publish("pvc-1", "v")
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := (kernelQuotas{}).serve(staged); err != nil && strings.Contains(err.Error(), "is not known") {
		fmt.Println(err)
	}
	if _, err := attributes(staged); errors.Is(err, unix.EPERM) {
		fmt.Println("attributes:", err)
	}
	fmt.Println("done")
}

func TestConfine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: without CAP_SYS_ADMIN all of it is refused anyway")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = []string{confinedRole + "=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "done\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
