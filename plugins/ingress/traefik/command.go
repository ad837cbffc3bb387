package traefik

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/k3m-io/k3m/sdk"
)

const dashboardCommand = "dashboard"

// Command implements sdk.Commander.
func (*plugin) Command(ctx context.Context, name string, args []string, paths sdk.CommandPaths) error {
	if name != dashboardCommand {
		return fmt.Errorf("%s has no command %q", id, name)
	}
	flags := flag.NewFlagSet("k3m component dashboard "+id, flag.ContinueOnError)
	flags.SetOutput(os.Stderr)
	listen := flags.String("listen", "127.0.0.1:9000", "address to open the dashboard on")
	printURL := flags.Bool("url", false, "print where the dashboard is on this node, and end")
	flags.Usage = func() {
		fmt.Fprintf(os.Stderr, "Open the dashboard and the API of this node's Traefik, until ctrl-C.\n\nUsage:\n  k3m component dashboard %s [flags]\n\nFlags:\n", id)
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return sdk.ExitCode(2) // flags has said why
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	address, err := readDashboardAddress(paths.DataDir)
	if err != nil {
		return err
	}
	if *printURL {
		fmt.Printf("http://%s/dashboard/\n", address)
		return nil
	}
	return openDashboard(ctx, os.Stdout, *listen, paths.DataDir)
}

// openDashboard answers on listen what the dashboard does, until ctx ends. It looks again at each request where that is,
// so that it outlives a restart of the component.
func openDashboard(ctx context.Context, out io.Writer, listen, dataDir string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("open the dashboard: %w; choose another address with --listen", err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			address, err := readDashboardAddress(dataDir)
			if err != nil {
				address = "127.0.0.1:0" // ErrorHandler says what it says
			}
			r.SetURL(&url.URL{Scheme: "http", Host: address})
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, id+" does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}
	at, _ := l.Addr().(*net.TCPAddr)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at != nil && at.IP.IsLoopback() && !onLoopback(r.Host) {
			http.Error(w, "the dashboard answers for localhost alone", http.StatusMisdirectedRequest)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	fmt.Fprintf(out, "the dashboard is at http://%s/dashboard/, the API at http://%[1]s/api; ctrl-C ends it\n", l.Addr())
	ended := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer ended()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// onLoopback tells whether a browser has asked for this machine by an address or name of loopback. A page of
// somebody else's, whose name leads here, has another, and would read what the dashboard shows.
func onLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
