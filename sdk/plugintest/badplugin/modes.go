package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
)

// A way differs from a good plugin in what it does before it serves, in what it says of
// itself, or in its work; nil is as a good plugin does.
type way struct {
	start func()
	info  func(*sdk.Info)
	run   func(ctx context.Context, host *sdk.Host) error
	// metrics makes it a sdk.MetricsWriter that writes this.
	metrics string
}

var modes = map[string]way{
	// Keeps the contract: a runtime or a cni reports what its kind must.
	"good": {},

	// At start.
	"exit-at-once": {start: func() {
		fmt.Fprintln(os.Stderr, "badplugin: leaving at once")
		os.Exit(3)
	}},
	"hang-at-start":          {start: hang},
	"rubbish-on-stdout":      {start: func() { fmt.Println("hello, \x1b[31mI am a plugin|that|talks\x1b[0m") }},
	"endless-on-stdout":      {start: func() { writeForever(os.Stdout) }},
	"other-protocol-version": {start: func() { serveVersion(99) }},
	"net-rpc":                {start: serveNetRPC},
	"socket-elsewhere":       {start: handshakeElsewhere},

	// In what it says of itself: more at every call after the first, and in a process
	// that has a network or finds the file <executable>.other or BADPLUGIN_OTHER set:
	// modest while it is inspected, demanding when it is launched.
	"other-info": {info: func(i *sdk.Info) {
		if calls.Add(1) > 1 || launchedForReal() {
			i.Privileges.Root = true
			i.Privileges.Capabilities = append(i.Privileges.Capabilities, "CAP_SYS_ADMIN")
		}
	}},
	// Without the SDK, which would refuse to say such things.
	"huge-info":      {start: func() { serveInfo(&pluginv1.Info{Images: slices.Repeat([]string{"example.org/image"}, 300_000)}) }},
	"malformed-info": {start: func() { serveInfo(&pluginv1.Info{Summary: "a summary\x1b[2J that clears the screen"}) }},

	// At work.
	"fail-in-run":  {run: func(context.Context, *sdk.Host) error { return errors.New("the disk of the test is full") }},
	"return-early": {run: func(context.Context, *sdk.Host) error { return nil }},
	"panic-in-run": {run: func(context.Context, *sdk.Host) error { panic("badplugin: panic in Run") }},
	"crash-after-ready": {run: func(ctx context.Context, host *sdk.Host) error {
		host.Ready()
		time.AfterFunc(500*time.Millisecond, func() { panic("badplugin: panic after Ready") })
		<-ctx.Done()
		return nil
	}},
	"never-ready": {run: func(ctx context.Context, _ *sdk.Host) error {
		<-ctx.Done()
		return nil
	}},
	"ignore-stop": {run: func(_ context.Context, host *sdk.Host) error {
		signal.Ignore(syscall.SIGTERM)
		host.Ready()
		hang()
		return nil
	}},
	"leave-children": {run: leaveChildren},
	"eat-memory":     {run: eatMemory, info: func(i *sdk.Info) { i.Limits.MemoryBytes = 64 << 20 }},
	"flood-stderr": {run: func(_ context.Context, host *sdk.Host) error {
		host.Ready()
		writeForever(os.Stderr)
		return nil
	}},
	// Says what only a runtime and a cni may say, and points at files of the host's.
	"false-report": {run: func(ctx context.Context, host *sdk.Host) error {
		host.RuntimeReady("unix:///etc/shadow")
		host.NetworkReady([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
		host.Ready()
		<-ctx.Done()
		return nil
	}},
	// Says that it serves what is another's, and where another lives.
	"false-endpoint": {
		info: func(i *sdk.Info) { i.Services = []string{"kube-system/mine"} },
		run: func(ctx context.Context, host *sdk.Host) error {
			gateway := host.Facts().PodGateways[:1]
			ports := []sdk.EndpointPort{{Name: "dns", Protocol: sdk.UDP, Port: 53}}
			host.Serve(
				sdk.Endpoint{Service: "kube-system/mine", Addresses: gateway, Ports: ports},
				sdk.Endpoint{Service: "default/kubernetes", Addresses: gateway, Ports: ports},
				sdk.Endpoint{Service: "kube-system/mine", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.99")}, Ports: ports},
			)
			host.Ready()
			<-ctx.Done()
			return nil
		},
	},
	// Serves, and does not get ready.
	"early-endpoint": {
		info: func(i *sdk.Info) { i.Services = []string{"kube-system/mine"} },
		run: func(ctx context.Context, host *sdk.Host) error {
			host.Serve(sdk.Endpoint{Service: "kube-system/mine", Addresses: host.Facts().PodGateways[:1],
				Ports: []sdk.EndpointPort{{Name: "dns", Protocol: sdk.UDP, Port: 53}}})
			<-ctx.Done()
			return nil
		},
	},
	// Owns what it declares, and then tries another's.
	"own": {
		info: func(i *sdk.Info) {
			i.Declares = []sdk.ObjectRef{{APIVersion: "v1", Kind: "Service", Namespace: "kube-system", Name: "mine"}}
		},
		run: func(ctx context.Context, host *sdk.Host) error {
			own := func(name string) {
				host.Own(json.RawMessage(fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"kube-system","name":%q,"annotations":{"rank":"%d"}}}`,
					name, host.Facts().KindRank)))
			}
			own("mine")
			host.Ready()
			<-ctx.Done()
			return nil
		},
	},
	"own-another's": {
		run: func(ctx context.Context, host *sdk.Host) error {
			host.Own(json.RawMessage(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"kube-system","name":"kube-dns"}}`))
			host.Ready()
			<-ctx.Done()
			return nil
		},
	},
	"false-metrics": {metrics: "go_goroutines 7\nthis is {no metric\n"},
	// Tries what it did not ask for, and reports what it was let do.
	"overdemand": {run: overdemand, info: func(i *sdk.Info) { i.Requires = []sdk.Requirement{sdk.RequiresAPI} }},
}

// bad is the plugin.
type bad struct {
	kind, name string
	mode       way
}

// Info says what a modest component says, then what the mode makes of it.
func (b *bad) Info() sdk.Info {
	i := sdk.Info{
		Kind: b.kind, Name: b.name, Version: "1.0.0", Scope: sdk.NodeScope,
		Summary: "misbehaves for the tests: " + mode,
	}
	if b.mode.info != nil {
		b.mode.info(&i)
	}
	return i
}

// Run does what the mode says, or behaves well.
func (b *bad) Run(ctx context.Context, host *sdk.Host) error {
	if b.mode.run != nil {
		return b.mode.run(ctx, host)
	}
	switch b.kind {
	case "runtime":
		host.RuntimeReady("unix://" + host.Facts().Paths.RunDir + "/badplugin.sock")
	case "cni":
		host.NetworkReady([]netip.Addr{netip.MustParseAddr("127.0.0.1")})
	}
	host.Ready()
	<-ctx.Done()
	return ctx.Err()
}

// measured is a bad plugin with metrics.
type measured struct{ *bad }

// WriteMetrics writes what the mode says.
func (m measured) WriteMetrics(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, m.mode.metrics)
	return err
}

var calls atomic.Int32

// launchedForReal tells an inspection, which has no network, from a launch, as a
// malicious plugin would.
func launchedForReal() bool {
	if os.Getenv("BADPLUGIN_OTHER") != "" {
		return true
	}
	if self, err := os.Executable(); err == nil {
		if _, err := os.Stat(self + ".other"); err == nil {
			return true
		}
	}
	interfaces, err := net.Interfaces()
	return err == nil && slices.ContainsFunc(interfaces, func(i net.Interface) bool {
		return i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0
	})
}

func modeNames() string {
	var names []string
	for name := range modes {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
