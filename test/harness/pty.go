package harness

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal makes the command run on a terminal of its own with that many rows and
// columns, and gives the other side of it. Call it before Start; close it after Wait.
func (c *Cmd) Terminal(rows, columns uint16) (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, os.NewSyscallError("unlock the terminal", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		master.Close()
		return nil, os.NewSyscallError("name the terminal", err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		master.Close()
		return nil, os.NewSyscallError("size the terminal", err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, err
	}
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	c.afterStart = func() { slave.Close() }
	return master, nil
}
