package launch

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// dropPrivileges leaves the calling thread with the spec's user and exactly its
// capabilities: permitted, effective, inheritable, ambient and, as far as a process
// without CAP_SETPCAP can (none: it has nothing to lose there), the bounding set.
//
// The bounding set is what holds for user id 0 too: executing a file as root raises
// everything that the bounding set leaves. Ambient capabilities are what hold for others.
func dropPrivileges(s Spec) error {
	keep := s.Capabilities
	if i := slices.IndexFunc(keep, func(number int) bool { return number < 0 || number > 63 }); i >= 0 {
		return refusal{fmt.Errorf("unknown capability %d", keep[i])}
	}
	if err := dropBounding(keep); err != nil {
		return err
	}
	if err := takeUser(s.UID, s.GID); err != nil {
		return err
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

func dropBounding(keep []int) error {
	for number := 0; number < 64; number++ {
		if slices.Contains(keep, number) {
			continue
		}
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel's last capability was the one before
		}
		if err != nil || set == 0 {
			continue
		}
		err = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0)
		if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
			return nil // an unprivileged caller; no_new_privs keeps what the bounding set can't
		}
		if err != nil {
			return fmt.Errorf("drop capability %d from the bounding set: %w", number, err)
		}
	}
	return nil
}

// takeUser changes user and group. The permitted capabilities survive the change
// (PR_SET_KEEPCAPS) until setCapabilities cuts them down.
func takeUser(uid, gid int) error {
	if uid < 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities over the change of user: %w", err)
	}
	if err := unix.Setgroups(nil); err != nil {
		return fmt.Errorf("drop supplementary groups: %w", err)
	}
	if err := unix.Setresgid(gid, gid, gid); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	if err := unix.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	return nil
}

func setCapabilities(keep []int) error {
	var data [2]unix.CapUserData
	for _, number := range keep {
		bit := uint32(1) << (number % 32)
		d := &data[number/32]
		d.Permitted, d.Effective, d.Inheritable = d.Permitted|bit, d.Effective|bit, d.Inheritable|bit
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	for _, number := range keep {
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(number), 0, 0); err != nil {
			return fmt.Errorf("raise ambient capability %d: %w", number, err)
		}
	}
	return nil
}
