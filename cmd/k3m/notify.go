package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"
)

// notifier tells a service manager how the server fares (sd_notify(3)). The kubelet and
// the API server would do so by themselves, each when it alone is ready: newNotifier takes
// the variables away from them.
type notifier struct {
	socket string
	// watchdog is how often the service manager wants to hear that the server lives; 0 if it
	// doesn't.
	watchdog time.Duration
}

func newNotifier() notifier {
	n := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	pid := os.Getenv("WATCHDOG_PID")
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails for malformed names only
	}
	return n
}

// heard tells whether there is a service manager.
func (n notifier) heard() bool { return n.socket != "" }

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

// keepAlive tells the service manager's watchdog, twice as often as it wants to hear it, that the
// server lives, as long as alive says so within that time. It returns when ctx ends.
func (n notifier) keepAlive(ctx context.Context, log *slog.Logger, alive func(context.Context) error) error {
	if n.socket == "" || n.watchdog == 0 {
		<-ctx.Done()
		return nil
	}
	// A timer, since the watchdog is one.
	ticker := time.NewTicker(n.watchdog / 2)
	defer ticker.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, n.watchdog/2)
		err := alive(asking)
		cancel()
		if err == nil {
			n.tell("WATCHDOG=1")
		} else if ctx.Err() == nil {
			log.Error("the service manager's watchdog is not told that the server lives, and may restart it", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// watchdog runs keepAlive. What a restart would not mend, such as a full disk, is no reason for
// one: the server lives as long as its API server answers at all.
func (s *server) watchdog(ctx context.Context) error {
	return s.notifier.keepAlive(ctx, s.log, func(ctx context.Context) error {
		select {
		case <-s.controlPlane.APIReady():
		default:
			return nil // however long a start takes
		}
		client, err := kubernetes.NewForConfig(s.controlPlane.AdminConfig())
		if err != nil {
			return err
		}
		if _, err := client.RESTClient().Get().AbsPath("/livez/ping").DoRaw(ctx); err != nil {
			return fmt.Errorf("ask the API server whether it lives: %w", err)
		}
		return nil
	})
}
