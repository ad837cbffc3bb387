package main

import (
	"net"
	"os"
)

// notifier tells a service manager how the server fares (sd_notify(3)). The kubelet and
// the API server would do so by themselves, each when it alone is ready: newNotifier takes
// the variables away from them.
type notifier struct{ socket string }

func newNotifier() notifier {
	n := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails for malformed names only
	}
	return n
}

// tell sends a state such as "READY=1". Without a service manager, or with one that is
// gone, nothing happens: it is a courtesy.
func (n notifier) tell(state string) {
	if n.socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state)) // as above
}
