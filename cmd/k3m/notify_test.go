package main

import (
	"net"
	"os"
	"path/filepath"
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

func TestNoServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	newNotifier().tell("READY=1")
	t.Setenv("NOTIFY_SOCKET", "")
	newNotifier().tell("READY=1")
}
