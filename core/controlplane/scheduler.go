package controlplane

import (
	"context"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/cmd/kube-scheduler/app"
	"k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

func newSchedulerOptions() (*options.Options, *pflag.FlagSet) {
	opts := options.NewOptions()
	fs := pflag.NewFlagSet(Scheduler, pflag.ContinueOnError)
	for _, set := range opts.Flags.FlagSets {
		fs.AddFlagSet(set)
	}
	return opts, fs
}

// runScheduler schedules pods until ctx ends.
func (c *ControlPlane) runScheduler(ctx context.Context, creds *credentials) error {
	opts, fs := newSchedulerOptions()
	if err := c.opts.Args.apply(fs, Scheduler, c.schedulerDefaults(creds)); err != nil {
		return err
	}
	var err error
	if opts.InformerName, err = cache.NewInformerName(Scheduler); err != nil {
		return err
	}
	config, scheduler, err := app.Setup(ctx, opts)
	if err != nil {
		return err
	}
	return app.Run(ctx, config, scheduler)
}

func (c *ControlPlane) schedulerDefaults(creds *credentials) []argument {
	return []argument{
		{name: "kubeconfig", value: creds.schedulerConfig},
		{name: "authentication-kubeconfig", value: creds.schedulerConfig},
		{name: "authorization-kubeconfig", value: creds.schedulerConfig},
		{name: "bind-address", value: "127.0.0.1"},
		{name: "tls-cert-file", value: creds.localServing.CertFile},
		{name: "tls-private-key-file", value: creds.localServing.KeyFile},
		{name: "profiling", value: "false"},
		{name: "contention-profiling", value: "false"},
		{name: "leader-elect", value: "false"},
		{name: "kube-api-qps", value: "200"},
		{name: "kube-api-burst", value: "400"},
	}
}
