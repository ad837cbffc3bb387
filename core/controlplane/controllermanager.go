package controlplane

import (
	"context"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

func newControllerManagerOptions() (*options.KubeControllerManagerOptions, *pflag.FlagSet, error) {
	opts, err := options.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, nil, err
	}
	fs := pflag.NewFlagSet(ControllerManager, pflag.ContinueOnError)
	sets := opts.Flags(app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	for _, set := range sets.FlagSets {
		fs.AddFlagSet(set)
	}
	return opts, fs, nil
}

// runControllerManager runs the controllers until ctx ends or one of them can't be set up. The
// API must be ready: upstream looks again after a whole second if it isn't.
func (c *ControlPlane) runControllerManager(ctx context.Context, creds *credentials) error {
	opts, fs, err := newControllerManagerOptions()
	if err != nil {
		return err
	}
	if err := c.opts.Args.apply(fs, ControllerManager, c.controllerManagerDefaults(creds)); err != nil {
		return err
	}
	config, err := opts.Config(ctx, app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases())
	if err != nil {
		return err
	}
	config.Kubeconfig.Wrap(c.seeControllersBuilt)
	return app.Run(ctx, config.Complete())
}

func (c *ControlPlane) controllerManagerDefaults(creds *credentials) []argument {
	o := c.opts
	return []argument{
		{name: "kubeconfig", value: creds.controllerManagerConfig},
		{name: "authentication-kubeconfig", value: creds.controllerManagerConfig},
		{name: "authorization-kubeconfig", value: creds.controllerManagerConfig},
		{name: "bind-address", value: "127.0.0.1"},
		{name: "tls-cert-file", value: creds.localServing.CertFile},
		{name: "tls-private-key-file", value: creds.localServing.KeyFile},
		{name: "profiling", value: "false"},
		{name: "contention-profiling", value: "false"}, // makes every block of a goroutine an event
		// One server, and the datastore's lock says so.
		{name: "leader-elect", value: "false"},

		{name: "root-ca-file", value: creds.pki.Server.CertFile},
		{name: "service-account-private-key-file", value: creds.pki.ServiceAccountKeyFile},
		{name: "use-service-account-credentials", value: "true"},
		// Each controller asks for its ServiceAccount and a token as it is built, one after
		// the other: at the default of 20 requests a second the last one waits for 5 s.
		{name: "kube-api-qps", value: "200"},
		{name: "kube-api-burst", value: "400"},

		{name: "cluster-cidr", value: join(o.ClusterCIDRs)},
		{name: "service-cluster-ip-range", value: join(o.ServiceCIDRs)},
		{name: "allocate-node-cidrs", value: "true"},

		// Kubelets show certificates of the server authority; everything that says who
		// somebody is comes from the client authority.
		{name: "cluster-signing-kubelet-serving-cert-file", value: creds.pki.Server.CertFile},
		{name: "cluster-signing-kubelet-serving-key-file", value: creds.pki.Server.KeyFile},
		{name: "cluster-signing-kubelet-client-cert-file", value: creds.pki.Client.CertFile},
		{name: "cluster-signing-kubelet-client-key-file", value: creds.pki.Client.KeyFile},
		{name: "cluster-signing-kube-apiserver-client-cert-file", value: creds.pki.Client.CertFile},
		{name: "cluster-signing-kube-apiserver-client-key-file", value: creds.pki.Client.KeyFile},
		{name: "cluster-signing-legacy-unknown-cert-file", value: creds.pki.Client.CertFile},
		{name: "cluster-signing-legacy-unknown-key-file", value: creds.pki.Client.KeyFile},

		{name: "controller-shutdown-timeout", value: controllerStopTimeout.String()},
	}
}
