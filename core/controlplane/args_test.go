package controlplane_test

import (
	"strings"
	"testing"

	"github.com/k3m-io/k3m/core/controlplane"
)

func TestArgs(t *testing.T) {
	for name, c := range map[string]struct {
		args controlplane.Args
		want string // "" if they are good
	}{
		"none":                  {nil, ""},
		"one of each":           {controlplane.Args{"kube-apiserver": {"event-ttl=2h"}, "kube-controller-manager": {"node-monitor-period=1s"}, "kube-scheduler": {"kube-api-qps=10"}}, ""},
		"dashes":                {controlplane.Args{"kube-apiserver": {"--event-ttl=2h", "-v=2"}}, ""},
		"underscores":           {controlplane.Args{"kube-apiserver": {"event_ttl=2h"}}, ""},
		"a switch":              {controlplane.Args{"kube-apiserver": {"profiling"}}, ""},
		"repeated":              {controlplane.Args{"kube-apiserver": {"runtime-config=batch/v1=true", "runtime-config=apps/v1=true"}}, ""},
		"a value with =":        {controlplane.Args{"kube-apiserver": {"runtime-config=batch/v1=true"}}, ""},
		"unknown flag":          {controlplane.Args{"kube-apiserver": {"event-tll=2h"}}, "kube-apiserver has no flag --event-tll"},
		"another's flag":        {controlplane.Args{"kube-scheduler": {"event-ttl=2h"}}, "kube-scheduler has no flag --event-ttl"},
		"no value":              {controlplane.Args{"kube-apiserver": {"event-ttl"}}, "--event-ttl needs a value"},
		"a bad value":           {controlplane.Args{"kube-apiserver": {"event-ttl=soon"}}, `invalid duration "soon"`},
		"nothing":               {controlplane.Args{"kube-apiserver": {""}}, "want flag=value"},
		"reserved":              {controlplane.Args{"kube-apiserver": {"secure-port=6444"}}, "k3m decides on secure-port"},
		"k3m's own flag":        {controlplane.Args{"kube-apiserver": {"advertise-address=192.0.2.1"}}, "k3m decides on advertise-address: use --advertise-address"},
		"another's reserved":    {controlplane.Args{"kube-controller-manager": {"cluster-cidr=10.0.0.0/8"}}, "k3m decides on cluster-cidr"},
		"a gate":                {controlplane.Args{"kube-apiserver": {"feature-gates=ContextualLogging=true"}}, ""},
		"the same gate twice":   {controlplane.Args{"kube-apiserver": {"feature-gates=ContextualLogging=true"}, "kubelet": {"feature-gates=ContextualLogging=true"}}, ""},
		"the later wins":        {controlplane.Args{"kube-apiserver": {"feature-gates=AllAlpha=true", "feature-gates=AllAlpha=false"}, "kubelet": {"feature-gates=AllAlpha=false"}}, ""},
		"contradicting gates":   {controlplane.Args{"kube-apiserver": {"feature-gates=A=true,B=true"}, "kubelet": {"feature-gates=B=false"}}, "feature gate B is true in --kube-apiserver-arg and false in --kubelet-arg"},
		"a prefix that is none": {controlplane.Args{"kube-apiserver": {"feature-gates=kube:A=true"}, "kube-proxy": {"feature-gates=A=false"}}, "feature gate A is true"},
		"an unknown gate":       {controlplane.Args{"kubelet": {"feature-gates=SelfDriving=true"}}, "Kubernetes has no feature gate of that name"},
		"a gate of the kubelet": {controlplane.Args{"kubelet": {"feature-gates=NodeSwap=true"}}, ""},
		"a bad gate":            {controlplane.Args{"kubelet": {"feature-gates=A=maybe"}}, "A=maybe"},
		"no gate":               {controlplane.Args{"kubelet": {"feature-gates="}}, "names no feature gate"},
		"contradicting levels":  {controlplane.Args{"kube-apiserver": {"v=2"}, "kube-scheduler": {"v=4"}}, "--v is 2 in --kube-apiserver-arg and 4 in --kube-scheduler-arg"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.args.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a sentence: %q", err)
			}
		})
	}
}

func TestFeatureGates(t *testing.T) {
	gates, err := controlplane.Args{
		"kube-apiserver": {"feature-gates=A=true", "feature-gates=B=false"},
		"kubelet":        {"feature-gates=C=true"},
	}.FeatureGates()
	if err != nil || len(gates) != 3 || !gates["A"] || gates["B"] || !gates["C"] {
		t.Errorf("gates %v, %v", gates, err)
	}
}

func FuzzArgs(f *testing.F) {
	f.Add("feature-gates=A=true,B=false")
	f.Add("--v=2")
	f.Add("=")
	f.Fuzz(func(t *testing.T, arg string) {
		_, _ = controlplane.Args{"kubelet": {arg}}.FeatureGates()
	})
}
