package agent

import (
	"context"
	"errors"

	"k8s.io/kubernetes/pkg/kubelet"
	"k8s.io/kubernetes/pkg/volume"
)

// afterControllers makes the kubelet wait, before it initialises its volume plugins, until the
// controller-manager of the same process has built its controllers.
//
// Upstream's CSI plugin keeps the writer of CSINode objects in a package variable, which it sets
// when it is initialised; and each of the controllers that know volumes initialises one of its
// own, for a node without a name. Were one of them the last, the kubelet could not register CSI
// drivers, and would end the process if it had not yet made its CSINode.
func afterControllers(ctx context.Context, deps *kubelet.Dependencies, built <-chan struct{}) {
	if built != nil {
		deps.VolumePlugins = append([]volume.VolumePlugin{&gate{ctx: ctx, open: built}}, deps.VolumePlugins...)
	}
}

// gate is a volume plugin without volumes. The kubelet initialises its plugins in order.
type gate struct {
	volume.VolumePlugin // nil: nobody asks more of a plugin that supports nothing

	ctx  context.Context
	open <-chan struct{}
}

func (g *gate) GetPluginName() string             { return "k3m.io/after-controllers" }
func (g *gate) CanSupport(*volume.Spec) bool      { return false }
func (g *gate) Init(volume.VolumeHost) error      { return wait(g.ctx, g.open) }
func (g *gate) RequiresRemount(*volume.Spec) bool { return false }

func (g *gate) GetVolumeName(*volume.Spec) (string, error) {
	return "", errors.New("has no volumes")
}
