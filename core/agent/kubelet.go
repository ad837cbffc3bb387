package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"

	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/core/logging"
)

// runKubelet runs the kubelet once the node has joined and the runtime serves. It returns when
// ctx ends, or with what kept the kubelet from starting.
func (a *Agent) runKubelet(ctx context.Context, h *host) error {
	for _, event := range []<-chan struct{}{h.runtimeDone, h.preparedDone, h.filterDone, a.joined} {
		if err := wait(ctx, event); err != nil {
			return err
		}
	}
	score, err := oomScoreAdj()
	if err != nil {
		return err
	}
	s, err := kubeletServer(a.opts, a.identity().files, a.Cluster(), hostFacts{
		mode: h.filter.Mode, runtimeEndpoint: socketURL(h.endpoint), resolvConf: h.resolvConf, oomScoreAdj: score,
	})
	if err != nil {
		return err
	}
	if s.MaxOpenFiles, err = maxOpenFiles(s.MaxOpenFiles); err != nil {
		return err
	}
	if err := logging.RaiseVerbosity(int(s.Logging.Verbosity)); err != nil {
		return err
	}
	if err := prepareKubelet(ctx, s); err != nil {
		return err
	}
	deps, err := app.UnsecuredDependencies(ctx, s, utilfeature.DefaultFeatureGate)
	if err != nil {
		return err
	}
	a.opts.Health.Set(health.Condition{Part: PartKubelet, State: health.Working, Message: "registers the node"})
	afterControllers(ctx, deps, a.opts.ControllersBuilt)
	if err := app.Run(ctx, s, deps, utilfeature.DefaultFeatureGate); err != nil {
		return err
	}
	return stopped(ctx)
}

// prepareKubelet makes the kubelet's directories and checks its port, over which the kubelet
// would end the process.
func prepareKubelet(ctx context.Context, s *options.KubeletServer) error {
	for _, dir := range []string{s.RootDirectory, s.PodLogsDir, s.VolumePluginDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the kubelet's directories: %w", err)
		}
	}
	for _, addr := range []string{
		net.JoinHostPort(s.Address, strconv.Itoa(int(s.Port))),
		net.JoinHostPort(s.HealthzBindAddress, strconv.Itoa(int(s.HealthzPort))),
	} {
		if err := checkFree(ctx, addr); err != nil {
			return fmt.Errorf("%w: another kubelet on this host? Stop it, or give this node an address of its own", err)
		}
	}
	return nil
}

// checkFree listens for a moment.
func checkFree(ctx context.Context, addr string) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// stopped is what a part that should never end returns when it has: nil if it was asked to.
func stopped(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("it stopped by itself")
}

// socketURL makes the path of a socket a URL, as the kubelet wants it.
func socketURL(endpoint string) string {
	if strings.HasPrefix(endpoint, "/") {
		return "unix://" + endpoint
	}
	return endpoint
}
