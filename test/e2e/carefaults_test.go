package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// fullDisk leaves the datastore no byte, and then gives it some.
func (c *care) fullDisk() {
	ballast := filepath.Join(filepath.Dir(c.file), "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		c.Fatal(err)
	}
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(chunk)
	}
	f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		c.Fatal(err)
	}
	// The log may have room for some more.
	for i := 0; ; i++ {
		name := fmt.Sprint("full-", i)
		if err = c.create(within(c.T, 20*time.Second), name); err != nil {
			break
		}
		c.acknowledged = append(c.acknowledged, name)
		if i > 20_000 {
			c.Fatal("the disk is never full")
		}
	}
	if !strings.Contains(err.Error(), "the disk of the datastore is full") {
		c.Errorf("a write fails with %v", err)
	}
	out, code := command(c.T, c.h, "status")
	if code != 1 {
		c.Errorf("k3m status: exit code %d", code)
	}
	says(c.T, out, "datastore disk", "full: nothing can be written", "free space on the file system")
	c.nothingLost() // reads go on
	if err := os.Remove(ballast); err != nil {
		c.Fatal(err)
	}
	if err := c.create(within(c.T, 20*time.Second), "after-the-flood"); err != nil {
		c.Fatalf("with space: %v", err)
	}
	c.acknowledged = append(c.acknowledged, "after-the-flood")
	c.nothingLost()
	if _, err := eventually(within(c.T, 60*time.Second), func(ctx context.Context) (any, error) {
		out, code := command(c.T, c.h, "status")
		if code != 0 {
			return nil, fmt.Errorf("exit code %d: %s", code, out)
		}
		return nil, nil
	}); err != nil {
		c.Fatalf("k3m status, with space: %v", err)
	}
	if !c.node.Running() {
		c.Error("the server has ended")
	}
}

// damage overwrites a part of the datastore: the server refuses it, and leaves it alone.
func (c *care) damage() {
	c.node.Stop(c.T)
	file := c.file
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		c.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("\xff", 512)), 0); err != nil {
		c.Fatal(err)
	}
	f.Close()
	before := read(c.T, file)
	c.node.Restart(c.T)
	code, err := c.node.ExitCode(within(c.T, 30*time.Second))
	if err != nil || code != 1 {
		c.Errorf("exit code %d, %v", code, err)
	}
	says(c.T, c.node.Logs(), "is damaged (", "k3m leaves it as it is", "`k3m snapshot restore NAME` restores it")
	if read(c.T, file) != before {
		c.Error("the file was changed")
	}
	all := c.snapshots()
	last := all[len(all)-1]
	good(c.T, c.h, []string{"snapshot", "restore", last.Name}, "the datastore that was there is in")
	c.node.Restart(c.T)
	c.connect()
	if !c.there()["after-the-restore"] {
		c.Error("the snapshot is not what was restored")
	}
	good(c.T, c.h, []string{"snapshot", "delete", last.Name}, "deleted")
	bad(c.T, c.h, 1, []string{"snapshot", "delete", last.Name}, "no such snapshot")
}
