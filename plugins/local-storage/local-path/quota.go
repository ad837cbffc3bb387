package localpath

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Project quotas: each volume's directory belongs to a project, what is made in it
// inherits that, and the file system limits what a project takes. ext4, XFS and f2fs have
// them. The calls and structures are the kernel's (linux/quota.h, linux/dqblk_xfs.h,
// linux/fs.h); quotactl_fd is in Linux since 5.14 and needs no path of a device.

const (
	projectQuota = 2 // PRJQUOTA

	quotaGet   = 0x800007 // Q_GETQUOTA
	quotaSet   = 0x800008 // Q_SETQUOTA
	quotaState = 'X'<<8 + 8

	stateVersion    = 1      // FS_QSTATV_VERSION1
	projectEnforced = 1 << 5 // FS_QUOTA_PDQ_ENFD

	blockLimits = 1    // QIF_BLIMITS
	blockSize   = 1024 // QIF_DQBLKSIZE: the unit of limits

	getAttributes  = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes  = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritProject = 0x200      // FS_XFLAG_PROJINHERIT

	// firstProject and countProjects bound the projects of volumes. The kubelet numbers
	// those of emptyDirs from 1048577 upwards, administrators from 1 in /etc/projects.
	firstProject, countProjects = 1 << 30, 1 << 30
)

// dqblk is struct if_dqblk.
type dqblk struct {
	HardBlocks, SoftBlocks, Bytes  uint64
	HardInodes, SoftInodes, Inodes uint64
	BlockGraceTime, InodeGraceTime uint64
	Valid                          uint32
	_                              uint32
}

// statv is struct fs_quota_statv.
type statv struct {
	Version int8
	_       uint8
	Flags   uint16
	_       [19]uint64 // what is of no use here
}

// fsxattr is struct fsxattr.
type fsxattr struct {
	Flags, ExtentSize, Extents, Project, CowExtentSize uint32
	_                                                  [8]byte
}

// quotas limits directories; kernelQuotas does it. All take an open directory.
type quotas interface {
	// serve says why there is nothing to limit with, or nil.
	serve(dir *os.File) error
	// limit limits all that is in a directory to so many bytes. The directory must be empty
	// the first time.
	limit(dir *os.File, seed string, bytes int64) error
	// project returns which one the directory belongs to; 0 for none.
	project(dir *os.File) (uint32, error)
	// forget takes the limit of a project away whose directory is gone; dir is any one of
	// the file system.
	forget(dir *os.File, project uint32) error
}

type kernelQuotas struct{}

func (kernelQuotas) serve(dir *os.File) error {
	state := statv{Version: stateVersion}
	err := quotactl(dir, quotaState, 0, unsafe.Pointer(&state))
	if err == nil {
		_, err = attributes(dir)
	}
	switch {
	case err == nil && state.Flags&projectEnforced != 0:
		return nil
	case err == nil, errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTBLK):
		return errors.New("the file system has no project quotas in force")
	}
	return fmt.Errorf("the state of project quotas is not known: %w", err)
}

func (q kernelQuotas) limit(dir *os.File, seed string, bytes int64) error {
	a, err := attributes(dir)
	if err != nil {
		return fmt.Errorf("limit %s: read its project: %w", dir.Name(), err)
	}
	if a.Project < firstProject {
		if a.Project, err = freeProject(dir, seed); err != nil {
			return fmt.Errorf("limit %s: %w", dir.Name(), err)
		}
	}
	// The directory first: a limit without a directory would make the number look taken
	// for ever after a crash.
	a.Flags |= inheritProject
	if err := ioctl(dir, setAttributes, unsafe.Pointer(&a)); err != nil {
		return fmt.Errorf("limit %s: set its project: %w", dir.Name(), err)
	}
	blocks := (uint64(bytes) + blockSize - 1) / blockSize
	if err := setBlocks(dir, a.Project, blocks); err != nil {
		return fmt.Errorf("limit %s to %d bytes: %w", dir.Name(), bytes, err)
	}
	return nil
}

func (kernelQuotas) project(dir *os.File) (uint32, error) {
	a, err := attributes(dir)
	if err != nil || a.Project < firstProject {
		return 0, err
	}
	return a.Project, nil
}

func (kernelQuotas) forget(dir *os.File, project uint32) error {
	if err := setBlocks(dir, project, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("take away the limit of project %d: %w", project, err)
	}
	return nil
}

func setBlocks(dir *os.File, project uint32, blocks uint64) error {
	return quotactl(dir, quotaSet, project, unsafe.Pointer(&dqblk{HardBlocks: blocks, Valid: blockLimits}))
}

// freeProject finds a number that nobody uses on this file system. Where it begins to look
// depends on the seed, so that the first is nearly always free.
func freeProject(dir *os.File, seed string) (uint32, error) {
	h := fnv.New32a()
	h.Write([]byte(seed))
	const tries = 1000
	for i := range uint32(tries) {
		project := firstProject + (h.Sum32()+i)%countProjects
		var q dqblk
		err := quotactl(dir, quotaGet, project, unsafe.Pointer(&q))
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
			return project, nil
		}
		if err != nil {
			return 0, fmt.Errorf("look whether project %d is free: %w", project, err)
		}
		if q.HardBlocks == 0 && q.SoftBlocks == 0 && q.HardInodes == 0 && q.SoftInodes == 0 && q.Bytes == 0 && q.Inodes == 0 {
			return project, nil
		}
	}
	return 0, fmt.Errorf("find a free project: %d numbers in a row are taken", tries)
}

func attributes(dir *os.File) (fsxattr, error) {
	var a fsxattr
	err := ioctl(dir, getAttributes, unsafe.Pointer(&a))
	return a, err
}

func quotactl(dir *os.File, command, id uint32, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, dir.Fd(), uintptr(command<<8|projectQuota), uintptr(id), uintptr(data), 0, 0)
	if errno != 0 {
		return &fs.PathError{Op: "quotactl", Path: dir.Name(), Err: errno}
	}
	return nil
}

func ioctl(dir *os.File, request uintptr, data unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), request, uintptr(data))
	if errno != 0 {
		return &fs.PathError{Op: "ioctl", Path: dir.Name(), Err: errno}
	}
	return nil
}
