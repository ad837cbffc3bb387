package controlplane

import (
	"fmt"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"github.com/k3m-io/k3m/core/logging"
	_ "github.com/k3m-io/k3m/core/queuemetrics" // the work queues of all parts, without a timer each
)

// applyShared sets what is the whole process's: feature gates, emulated version, logging. It
// is the one place where the control plane changes globals of Kubernetes' libraries, and runs
// before any component is set up.
func applyShared(args Args, opts *options.ServerRunOptions, fs *pflag.FlagSet) error {
	settings, err := args.shared()
	if err != nil {
		return err
	}
	if gate := [2]string{"feature-gates", peerProxyGate}; settings[gate].value == "" {
		settings[gate] = setting{"false", APIServer}
	}
	for key, s := range settings {
		value := s.value
		if key[0] == "feature-gates" {
			value = key[1] + "=" + s.value
		}
		// All components have the flag if one has it: they get it from component-base.
		if err := fs.Set(key[0], value); err != nil {
			return fmt.Errorf("use --%s-arg %s=%s: %w", s.component, key[0], value, err)
		}
	}

	registry := opts.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return fmt.Errorf("set feature gates: %w", err)
	}
	// The components warn about each other's use of old API versions otherwise.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	// kubelet and kube-proxy apply their logging options too.
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	// Their logger stays k3m's own: applying opts.Logs would put upstream's in its place.
	if err := logging.RaiseVerbosity(int(opts.Logs.Verbosity)); err != nil { //nolint:gosec // klog's is a small number
		return err
	}
	if len(opts.Logs.VModule) == 0 {
		return nil
	}
	return logging.SetModules(logsapi.VModuleConfigurationPflag(&opts.Logs.VModule).String())
}
