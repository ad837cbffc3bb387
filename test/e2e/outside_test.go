package e2e

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/k3m-io/k3m/test/harness"
)

// outsideServer is a server outside of all nodes that tells callers their address. It
// gives its URL.
func outsideServer(t *testing.T) string {
	t.Helper()
	ln, err := lab.Switch.Listen("tcp", net.JoinHostPort(harness.SwitchAddr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host)
	})}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	return "http://" + ln.Addr().String() + "/"
}
