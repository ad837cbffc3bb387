package e2e

import (
	"io"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// startOnTerminal starts a server on a terminal and under a service manager, and stops it when it
// is ready.
func startOnTerminal(t *testing.T, host *harness.Host, args []string) {
	socket := filepath.Join(host.Dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan []string, 1)
	go func() {
		var all []string
		for buffer := make([]byte, 4096); ; {
			n, err := manager.Read(buffer)
			if err != nil {
				told <- all
				return
			}
			all = append(all, string(buffer[:n]))
		}
	}()
	server := host.K3m(within(t, 60*time.Second), slices.Concat([]string{"server"}, host.Flags(), args)...)
	server.Env = append(server.Env, "TERM=xterm", "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=1000000")
	terminal, err := server.Terminal(40, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var shown strings.Builder
	for buffer := make([]byte, 4096); !strings.Contains(shown.String(), "is Ready after"); {
		n, err := terminal.Read(buffer)
		shown.Write(buffer[:n])
		if err != nil {
			t.Errorf("the terminal ended with %v", err)
			break
		}
	}
	_ = server.Process.Signal(syscall.SIGTERM) // it may have ended
	go func() { _, _ = io.Copy(io.Discard, terminal) }()
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	_ = manager.Close() // ends the reading
	for _, want := range []string{`▸ datastore +opens the database`, `· kubelet +waits for the API and the container runtime`, `✓ API +\d+\.\ds`, `✓ runtime\.containerd +\d+\.\ds`, `\x1b\[\d+A\r\x1b\[J`} {
		if !regexp.MustCompile(want).MatchString(shown.String()) {
			t.Errorf("%s was not shown:\n%q", want, shown.String())
		}
	}
	all := strings.Join(<-told, "\n")
	if !regexp.MustCompile(`(?s)STATUS=node dual-[0-9a-f]{8}: \d+ of \d+ are well; .*WATCHDOG=1.*READY=1.*STOPPING=1`).MatchString(all) {
		t.Errorf("the service manager was told:\n%s", all)
	}
}
