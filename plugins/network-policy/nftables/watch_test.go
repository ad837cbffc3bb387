package nftables

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The watch goes on after what is no failure, and says why it ended.
func TestWatchTellsWhyItEnded(t *testing.T) {
	results := make(chan error)
	deleted, failed, done := followTable(func() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) { return nil, nil, <-results })
	results <- unix.EINTR
	results <- unix.ENOBUFS
	<-deleted // some were lost: it can't be sure
	results <- unix.EINTR
	select {
	case <-deleted:
		t.Error("an interrupted read counts as a deletion")
	case err := <-failed:
		t.Errorf("it ended: %v", err)
	default:
	}
	results <- unix.EBADF
	<-done
	if err := <-failed; !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "read changes of nftables") {
		t.Errorf("it ended with %v", err)
	}
}

func TestWatchEndsWhenItIsToldTo(t *testing.T) {
	_, _, stop, err := watchTable()
	if err != nil {
		t.Fatal(err)
	}
	stop()
}
