package localpath

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quotactl wants CAP_SYS_ADMIN, which is the right to nearly everything. confine leaves of
// it what quotas need: a seccomp filter for all threads of the process, which can't be
// taken off again, refuses the system calls that the capability opens.

// forbidden are system calls that CAP_SYS_ADMIN, DAC_OVERRIDE or FOWNER give power to and
// that the component never makes. Executing anything is one of them: what is executed
// would have the capabilities too.
var forbidden = []uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_FANOTIFY_INIT, unix.SYS_QUOTACTL, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_SYSLOG, unix.SYS_ACCT, unix.SYS_REBOOT,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_EXECVE, unix.SYS_EXECVEAT,
}

// namespaces are the flags of clone that make one.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// auditArch names this machine's system calls, whose numbers a filter knows.
var auditArch = map[string]uint32{
	"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64, "arm": unix.AUDIT_ARCH_ARM,
}[runtime.GOARCH]

// Offsets in struct seccomp_data.
const (
	callNumber = 0
	callArch   = 4
	firstWord  = 16 // the lower half of the first argument, on little-endian machines
	secondWord = 24
)

// x32 marks, on amd64, another table of the same system calls.
const x32 = 0x40000000

// confine installs the filter.
func confine() error {
	if auditArch == 0 {
		return fmt.Errorf("confine the process: the system calls of %s are not known", runtime.GOARCH)
	}
	filter := filterProgram()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// no_new_privs is the thread's; TSYNC gives it to all.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("confine the process: %w", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	switch {
	case errno != 0:
		return fmt.Errorf("confine the process: seccomp: %w", errno)
	case thread != 0:
		return fmt.Errorf("confine the process: thread %d has a filter of its own", thread)
	}
	return nil
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func answer(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }

// filterProgram is the filter, in classic BPF.
func filterProgram() []unix.SockFilter {
	refuse := func(errno unix.Errno) unix.SockFilter { return answer(unix.SECCOMP_RET_ERRNO | uint32(errno)) }
	allow := answer(unix.SECCOMP_RET_ALLOW)
	program := []unix.SockFilter{
		load(callArch), jump(unix.BPF_JEQ, auditArch, 1, 0), refuse(unix.EPERM),
		load(callNumber), jump(unix.BPF_JGE, x32, 0, 1), refuse(unix.EPERM),
	}
	for _, number := range forbidden {
		program = append(program, jump(unix.BPF_JEQ, number, 0, 1), refuse(unix.EPERM))
	}
	// only lets a call through whose argument is one of a few.
	only := func(number uint32, argument uint32, otherwise unix.Errno, words ...uint32) {
		n := uint8(len(words))
		program = append(program, jump(unix.BPF_JEQ, number, 0, n+3), load(argument))
		for i, word := range words {
			program = append(program, jump(unix.BPF_JEQ, word, n-uint8(i), 0))
		}
		program = append(program, refuse(otherwise), allow)
	}
	only(unix.SYS_QUOTACTL_FD, secondWord, unix.EPERM,
		quotaGet<<8&0xffffffff|projectQuota, quotaSet<<8&0xffffffff|projectQuota, quotaState<<8|projectQuota)
	only(unix.SYS_IOCTL, secondWord, unix.ENOTTY, getAttributes, setAttributes)
	return append(program,
		// Whoever starts a thread with clone3 takes ENOSYS for an old kernel, and uses clone,
		// whose flags a filter can read.
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), refuse(unix.ENOSYS),
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 3), load(firstWord), jump(unix.BPF_JSET, namespaces, 0, 1), refuse(unix.EPERM),
		allow)
}
