package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

func TestServiceManagerHearsTheServerAlone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	n := newNotifier()
	if v, ok := os.LookupEnv("NOTIFY_SOCKET"); ok {
		t.Errorf("NOTIFY_SOCKET is still %q for the parts that would notify by themselves", v)
	}
	n.tell("READY=1")
	buffer := make([]byte, 64)
	length, err := conn.Read(buffer)
	if err != nil || string(buffer[:length]) != "READY=1" {
		t.Errorf("heard %q, %v", buffer[:length], err)
	}
}

func TestWatchdogHearsOfALivingServerAlone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	n := newNotifier()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	asked := 0
	ended := make(chan error, 1)
	go func() {
		ended <- n.keepAlive(ctx, slog.New(slog.DiscardHandler), func(context.Context) error {
			if asked++; asked < 3 {
				return errors.New("the server hangs")
			}
			n.tell("asked " + strconv.Itoa(asked))
			return nil
		})
	}()
	buffer := make([]byte, 64)
	for _, want := range []string{"asked 3", "WATCHDOG=1", "asked 4", "WATCHDOG=1"} {
		length, err := conn.Read(buffer)
		if got := string(buffer[:length]); err != nil || got != want {
			t.Fatalf("heard %q, %v; want %q", got, err, want)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchdogOfAnotherProcess(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "1")
	if n := newNotifier(); n.watchdog != 0 {
		t.Errorf("it is told every %s", n.watchdog)
	}
}

func TestNoServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	newNotifier().tell("READY=1")
	t.Setenv("NOTIFY_SOCKET", "")
	newNotifier().tell("READY=1")
}
