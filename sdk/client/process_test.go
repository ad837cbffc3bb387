package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

// The test executable doubles as a plugin when it is started with this in its
// environment.
const actAsPlugin = "CLIENT_TEST_ACT_AS_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(actAsPlugin) != "" {
		sdk.Serve(echo{})
	}
	os.Exit(m.Run())
}

// echo is ready at once and fails if it is told to.
type echo struct{}

func (echo) Info() sdk.Info {
	return sdk.Info{
		Kind: "addon", Name: "echo", Version: "1.0.0", Summary: "says what it was given", Scope: sdk.NodeScope,
		ConfigSchema: json.RawMessage(`{"type":"object","properties":{"fail":{"type":"string"}},"additionalProperties":false}`),
	}
}

func (echo) Run(ctx context.Context, host *sdk.Host) error {
	config := struct {
		Fail string `json:"fail"`
	}{}
	if err := host.DecodeConfig(&config); err != nil {
		return err
	}
	if config.Fail != "" {
		return errors.New(config.Fail)
	}
	host.NetworkReady(host.Facts().PodGateways)
	facts := host.Facts()
	host.Degraded(strings.Join([]string{"not yet on", facts.NodeName, facts.ResolvConf, facts.LocalStoragePath}, " "))
	host.Ready()
	host.Ready()
	<-ctx.Done()
	return ctx.Err()
}

func start(t *testing.T) *client.Client {
	t.Helper()
	config := &plugin.ClientConfig{
		Cmd:    exec.CommandContext(t.Context(), os.Args[0]),
		Logger: hclog.NewNullLogger(), Stderr: t.Output(), StartTimeout: 20 * time.Second,
	}
	config.Cmd.Env = []string{actAsPlugin + "=1", "TMPDIR=" + t.TempDir()}
	client.Configure(config)
	process := plugin.NewClient(config)
	t.Cleanup(process.Kill)
	c, err := client.Connect(process, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRunReportsAndStops(t *testing.T) {
	c := start(t)
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := sdk.Describe(echo{}); len(want.Differences(info)) > 0 {
		t.Errorf("info over the wire differs: %v", want.Differences(info))
	}

	gateway := netip.MustParseAddr("10.42.0.1")
	reports := make(chan client.Report, 10)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(t.Context(), client.RunRequest{Facts: sdk.Facts{
			NodeName: "one", PodGateways: []netip.Addr{gateway}, ResolvConf: "/etc/resolv.conf", LocalStoragePath: "/srv"}},
			func(r client.Report) { reports <- r })
	}()
	for r := range reports {
		if n, ok := r.(client.NetworkReady); ok && n.Gateways[0] != gateway {
			t.Errorf("gateway %v", n.Gateways)
		}
		if d, ok := r.(client.Degraded); ok && d.Reason != "not yet on one /etc/resolv.conf /srv" {
			t.Errorf("facts arrived as %q", d.Reason)
		}
		if _, ok := r.(client.Ready); ok {
			break
		}
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}
