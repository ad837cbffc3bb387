package agent

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/kubernetes/cmd/kube-proxy/app"

	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/core/logging"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// proxyGrace is how long kube-proxy waits for the node to get Ready. Its start (dozens of iptables
// calls, which clean up after another mode) would take the processor from what makes the node
// Ready, and until then there are no pods but those that make the network. These may need
// Services, with a network that isn't ours: hence the limit.
const proxyGrace = 5 * time.Second

// runProxy runs kube-proxy once the node is Ready, or for a while has not become so: in any case
// once its object has its addresses, for which kube-proxy would ask once a second. kube-proxy doesn't know how to stop: when ctx ends it is left to the end
// of the process, and its rules go on working without it.
func (a *Agent) runProxy(ctx context.Context, h *host) error {
	for _, event := range []<-chan struct{}{h.preparedDone, h.filterDone, a.joined, a.registered} {
		if err := wait(ctx, event); err != nil {
			return err
		}
	}
	grace, cancel := context.WithTimeout(ctx, proxyGrace)
	_ = wait(grace, a.ready) // either will do
	cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	score, err := oomScoreAdj()
	if err != nil {
		return err
	}
	proxy, err := newProxy(a.opts, a.identity().files, a.Cluster(), h.filter.Mode, score)
	if err != nil {
		return err
	}
	a.opts.Health.Set(health.Condition{Part: PartProxy, State: health.Working, Message: "programs the Services"})
	done := make(chan error, 1)
	go func() { done <- proxy.Run(ctx) }()
	select {
	case err := <-done:
		if err == nil {
			err = stopped(ctx)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newProxy configures kube-proxy by its own flags: its configuration object can't be reached
// from outside, and flags that come later (the user's) win.
func newProxy(o Options, f files, cluster wire.ClusterFacts, mode Mode, oomScoreAdj int32) (*app.Options, error) {
	defaults := []string{
		"kubeconfig=" + f.proxyKubeconfig,
		"hostname-override=" + o.NodeName,
		"proxy-mode=" + string(mode),
		"cluster-cidr=" + strings.Join(cluster.ClusterCIDRs, ","),
		// Nobody outside asks without a cloud's load balancer.
		"healthz-bind-address=127.0.0.1:10256",
		"metrics-bind-address=127.0.0.1:10249",
		fmt.Sprintf("oom-score-adj=%d", oomScoreAdj),
	}
	proxy, fs, err := proxyFlags(append(defaults, conntrackArgs()...), o.KubeProxyArgs)
	if err != nil {
		return nil, err
	}
	if v := fs.Lookup("v"); v.Changed {
		var level int
		if _, err := fmt.Sscan(v.Value.String(), &level); err != nil {
			return nil, fmt.Errorf("--kube-proxy-arg v: %w", err)
		}
		if err := logging.RaiseVerbosity(level); err != nil {
			return nil, err
		}
	}
	if err := proxy.Complete(fs); err != nil {
		return nil, fmt.Errorf("--kube-proxy-arg: %w", err)
	}
	if err := proxy.Validate(); err != nil {
		return nil, fmt.Errorf("--kube-proxy-arg: %w", err)
	}
	return proxy, nil
}

// proxyFlags are kube-proxy's options with defaults and, over them, the user's arguments.
func proxyFlags(defaults, args []string) (*app.Options, *pflag.FlagSet, error) {
	proxy := app.NewOptions()
	fs := pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	proxy.AddFlags(fs)
	if err := parseArgs("kube-proxy", fs, nil, defaults); err != nil {
		return nil, nil, err
	}
	if err := parseArgs("--kube-proxy-arg", fs, notForProxy, args); err != nil {
		return nil, nil, err
	}
	return proxy, fs, nil
}

// notForProxy are flags of kube-proxy that k3m decides on, with whom to ask instead.
var notForProxy = map[string]string{
	"config":            "pass the single flags instead",
	"write-config-to":   "pass the single flags instead",
	"kubeconfig":        "k3m makes it",
	"master":            "k3m knows its server",
	"hostname-override": "use --node-name",
	"cleanup":           "use k3m uninstall",
	"init-only":         "k3m keeps kube-proxy running",
}

// Where kube-proxy sizes the connection tracking table.
const (
	conntrackMax      = "/proc/sys/net/netfilter/nf_conntrack_max"
	conntrackHashsize = "/sys/module/nf_conntrack/parameters/hashsize"
	conntrackTimeout  = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"
)

// conntrackArgs leaves connection tracking as it is where it can't be changed (the table's size
// belongs to the initial network namespace; containers often have a read-only /proc/sys), over
// which kube-proxy would not start.
func conntrackArgs() []string {
	var args []string
	if !writable(conntrackMax) || !writable(conntrackHashsize) {
		args = append(args, "conntrack-max-per-core=0")
	}
	if !writable(conntrackTimeout) {
		args = append(args, "conntrack-tcp-timeout-established=0s", "conntrack-tcp-timeout-close-wait=0s")
	}
	return args
}

func writable(path string) bool {
	if unix.Access(path, unix.W_OK) != nil {
		return false
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}
