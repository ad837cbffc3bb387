package localpath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/keymutex"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/k3m-io/k3m/plugins/local-storage/local-path/pathpattern"
)

// selectedNode is the scheduler's word on a claim: where its volume shall be.
const selectedNode = "volume.kubernetes.io/selected-node"

// Reasons of the component's own Events. ProvisioningFailed is the library's too.
const (
	reasonFailed      = "ProvisioningFailed"
	reasonNotEnforced = "CapacityNotEnforced"
	reasonResized     = "VolumeResizeSuccessful"
	reasonNotResized  = "VolumeResizeFailed"
)

// provisioner makes and removes the volumes of one node. The library's controllers on
// all nodes see all claims; each acts on those of its own node, so there is no leader.
type provisioner struct {
	node    string
	bases   []*base
	pattern *pathpattern.Pattern
	quotas  quotas
	ledger  *ledger
	client  kubernetes.Interface
	events  record.EventRecorder
	log     hclog.Logger
	// volumes are the PersistentVolumes of this node, as the API has them.
	volumes cache.Store
	// spaceChanged is called when free space is likely to have changed; exact asks that it
	// is published however small the change.
	spaceChanged func(exact bool)
	// busy is held, by a volume's name, by who makes, grows or removes its directory.
	busy keymutex.KeyMutex
}

var (
	_ controller.Provisioner   = (*provisioner)(nil)
	_ controller.Qualifier     = (*provisioner)(nil)
	_ controller.DeletionGuard = (*provisioner)(nil)
)

// ShouldProvision implements controller.Qualifier.
func (p *provisioner) ShouldProvision(_ context.Context, claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[selectedNode] == p.node
}

// ShouldDelete implements controller.DeletionGuard.
func (p *provisioner) ShouldDelete(_ context.Context, volume *corev1.PersistentVolume) bool {
	return p.own(volume)
}

// own says whether a volume is one that this node's component made.
func (p *provisioner) own(volume *corev1.PersistentVolume) bool {
	return volume.Labels[nodeLabel] == p.node && volume.Spec.Local != nil &&
		volume.Annotations["pv.kubernetes.io/provisioned-by"] == provisionerName
}

// Provision implements controller.Provisioner. Calling it again for the same volume, after
// a crash too, gives the same directory.
func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	if o.SelectedNodeName != p.node {
		return nil, controller.ProvisioningFinished, &controller.IgnoredError{Reason: "its node is another one"}
	}
	if err := checkClaim(o); err != nil {
		return p.refuse(o.PVC, err)
	}
	p.busy.LockKey(o.PVName)
	defer func() { _ = p.busy.UnlockKey(o.PVName) }()

	size := o.PVC.Spec.Resources.Requests[corev1.ResourceStorage]
	b, path, state, err := p.directory(ctx, o, size.Value())
	if errors.Is(err, errTaken) {
		return p.refuse(o.PVC, fmt.Errorf("%w; remove it, or name .PVName in the pathPattern", err))
	}
	if err != nil {
		return nil, state, err
	}
	unlimited, err := p.limited(b, path)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	p.spaceChanged(false)
	volume := p.volume(o, size, filepath.Join(b.path, path))
	if unlimited != nil {
		volume.Annotations[capacityAnnotation] = notEnforced
		p.events.Eventf(o.PVC, corev1.EventTypeNormal, reasonNotEnforced,
			"the size of %s is not enforced on node %s: %v", size.String(), p.node, unlimited)
	}
	p.log.Info("made a volume", "volume", o.PVName, "claim", o.PVC.Namespace+"/"+o.PVC.Name,
		"path", volume.Spec.Local.Path, "size", size.String(), "capacity", volume.Annotations[capacityAnnotation])
	return volume, controller.ProvisioningFinished, nil
}

// refuse tells the claim's owner why it gets no volume, and ends it there: what is wrong
// does not change by itself.
func (p *provisioner) refuse(claim *corev1.PersistentVolumeClaim, err error) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	p.events.Event(claim, corev1.EventTypeWarning, reasonFailed, err.Error())
	return nil, controller.ProvisioningFinished, &controller.IgnoredError{Reason: err.Error()}
}

// checkClaim refuses what a directory on one node can't be.
func checkClaim(o controller.ProvisionOptions) error {
	spec := o.PVC.Spec
	for _, mode := range spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return fmt.Errorf("access mode %s is not possible: a directory on one node is ReadWriteOnce or ReadWriteOncePod", mode)
		}
	}
	switch {
	case spec.Selector != nil:
		return errors.New("a selector is for volumes that are there already; leave it out")
	case spec.DataSource != nil || spec.DataSourceRef != nil:
		return errors.New("a data source (snapshot or clone) is not supported; make an empty volume and copy into it")
	case spec.VolumeAttributesClassName != nil && *spec.VolumeAttributesClassName != "":
		return errors.New("a volume attributes class is not supported; leave it out")
	}
	for name := range o.StorageClass.Parameters {
		return fmt.Errorf("StorageClass %s has the parameter %q, and %s knows none; paths are set in the component's configuration", o.StorageClass.Name, name, provisionerName)
	}
	return nil
}

// directory returns where the claim's volume is, and makes it if it is not there. In the
// ledger it is before it is at its path.
func (p *provisioner) directory(ctx context.Context, o controller.ProvisionOptions, size int64) (*base, string, controller.ProvisioningState, error) {
	if e, ok := p.ledger.get(o.PVName); ok {
		if b := p.baseAt(e.Base); b != nil && e.ClaimUID == string(o.PVC.UID) && p.is(b, e) {
			return b, e.Path, "", nil
		}
		if err := p.ledger.remove(o.PVName); err != nil {
			return nil, "", controller.ProvisioningFinished, err
		}
	}
	b, state, err := p.roomiest(size)
	if err != nil {
		return nil, "", state, err
	}
	path, err := p.pattern.Render(pathpattern.Names{
		PVC:    pathpattern.Claim{Namespace: o.PVC.Namespace, Name: o.PVC.Name, UID: string(o.PVC.UID)},
		PVName: o.PVName, NodeName: p.node,
	})
	if err != nil {
		return nil, "", controller.ProvisioningFinished, err
	}
	if err := p.alone(o.PVName, filepath.Join(b.path, path)); err != nil {
		return nil, "", controller.ProvisioningFinished, err
	}
	if err := p.make(b, path, o, size); err != nil {
		return nil, "", controller.ProvisioningFinished, errors.Join(err, p.unmake(ctx, b, o.PVName))
	}
	return b, path, "", nil
}

// unmake removes what make has left when it failed, whatever step that was.
func (p *provisioner) unmake(ctx context.Context, b *base, pv string) error {
	if e, ok := p.ledger.get(pv); ok && p.is(b, e) {
		if err := p.removeDirectory(ctx, b, e.Path); err != nil {
			return err // the entry stays, for another try
		}
	}
	return errors.Join(b.unstage(pv), p.ledger.remove(pv))
}

func (p *provisioner) make(b *base, path string, o controller.ProvisionOptions, size int64) error {
	dir, err := b.stage(o.PVName)
	if err != nil {
		return err
	}
	defer dir.Close()
	if p.quotas.serve(dir) == nil {
		if err := p.quotas.limit(dir, o.PVName, size); err != nil {
			return err
		}
	}
	id, err := inodeOf(dir)
	if err != nil {
		return err
	}
	if err := p.ledger.put(o.PVName, entry{
		Base: b.path, Path: path, Inode: id, Namespace: o.PVC.Namespace, Claim: o.PVC.Name, ClaimUID: string(o.PVC.UID),
	}); err != nil {
		return err
	}
	return b.publish(o.PVName, path)
}

// roomiest returns the base with the most free space, if the size fits there.
func (p *provisioner) roomiest(size int64) (*base, controller.ProvisioningState, error) {
	if len(p.bases) == 0 {
		return nil, controller.ProvisioningReschedule, fmt.Errorf("node %s has no directory for volumes (paths, in the configuration of %s)", p.node, provisionerName)
	}
	best, most, err := mostFree(p.bases)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	if size > most {
		p.spaceChanged(true) // before the scheduler chooses again
		return nil, controller.ProvisioningReschedule, fmt.Errorf("not enough free space on node %s: the claim wants %s, and %s is free in %s",
			p.node, quantity(size), quantity(most), best.path)
	}
	return best, "", nil
}

// mostFree returns the base with the most free space, in bytes.
func mostFree(bases []*base) (best *base, most int64, err error) {
	for _, b := range bases {
		free, _, err := b.free()
		if err != nil {
			return nil, 0, err
		}
		if best == nil || free > most {
			best, most = b, free
		}
	}
	return best, most, nil
}

// quantity writes bytes as people do, rounded down to MiB.
func quantity(bytes int64) string {
	if bytes >= 1<<20 {
		bytes &^= 1<<20 - 1
	}
	return resource.NewQuantity(bytes, resource.BinarySI).String()
}

// alone refuses a path that lies in another volume or around one: they would share data,
// and go together.
func (p *provisioner) alone(pv, path string) error {
	for _, object := range p.volumes.List() {
		other := object.(*corev1.PersistentVolume)
		if other.Name != pv && other.Spec.Local != nil && (within(other.Spec.Local.Path, path) || within(path, other.Spec.Local.Path)) {
			return fmt.Errorf("%s and %s, of volume %s, would lie in each other: %w", path, other.Spec.Local.Path, other.Name, errTaken)
		}
	}
	return nil
}

// limited says why a volume is not limited, or nil when it is.
func (p *provisioner) limited(b *base, path string) (unlimited, err error) {
	dir, err := b.volume(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := p.quotas.serve(dir); err != nil {
		return err, nil
	}
	project, err := p.quotas.project(dir)
	if err == nil && project == 0 {
		return errors.New("it was made before the file system had quotas"), nil
	}
	return nil, err
}

// volume is the PersistentVolume for a directory.
func (p *provisioner) volume(o controller.ProvisionOptions, size resource.Quantity, path string) *corev1.PersistentVolume {
	mode := corev1.PersistentVolumeFilesystem
	reclaim := corev1.PersistentVolumeReclaimDelete
	if o.StorageClass.ReclaimPolicy != nil {
		reclaim = *o.StorageClass.ReclaimPolicy
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        o.PVName,
			Labels:      map[string]string{nodeLabel: p.node},
			Annotations: map[string]string{capacityAnnotation: enforced},
		},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: reclaim,
			AccessModes:                   o.PVC.Spec.AccessModes,
			MountOptions:                  o.StorageClass.MountOptions,
			VolumeMode:                    &mode,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: size},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.node},
				}},
			}}}},
		},
	}
}

// Delete implements controller.Provisioner.
func (p *provisioner) Delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	if !p.own(volume) {
		return &controller.IgnoredError{Reason: "it is not a volume of node " + p.node}
	}
	p.busy.LockKey(volume.Name)
	defer func() { _ = p.busy.UnlockKey(volume.Name) }()
	b, path, err := p.locate(volume)
	if err != nil {
		return err
	}
	if err := p.alone(volume.Name, volume.Spec.Local.Path); err != nil {
		return err
	}
	if err := p.removeDirectory(ctx, b, path); err != nil {
		return err
	}
	p.log.Info("removed a volume", "volume", volume.Name, "path", volume.Spec.Local.Path)
	p.spaceChanged(false)
	return p.ledger.remove(volume.Name)
}

// removeDirectory removes a volume's directory and its limit.
func (p *provisioner) removeDirectory(ctx context.Context, b *base, path string) error {
	var project uint32
	dir, err := b.volume(path)
	if err == nil {
		if p.quotas.serve(dir) == nil {
			if project, err = p.quotas.project(dir); err != nil {
				p.log.Warn("could not find out the volume's project; its limit stays", "path", dir.Name(), "error", err)
			}
		}
		dir.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := b.remove(ctx, path); err != nil || project == 0 {
		return err
	}
	root, err := b.open()
	if err != nil {
		return err
	}
	defer root.Close()
	return p.quotas.forget(root, project)
}

// locate finds out in which base a volume is. Nothing else tells where a directory may be
// removed: the path in a PersistentVolume is the word of whoever wrote it.
func (p *provisioner) locate(volume *corev1.PersistentVolume) (*base, string, error) {
	path := volume.Spec.Local.Path
	for _, b := range p.bases {
		rel, err := filepath.Rel(b.path, path)
		if err == nil && filepath.IsLocal(rel) && rel != "." && filepath.Join(b.path, rel) == path {
			return b, rel, nil
		}
	}
	return nil, "", fmt.Errorf("%s, of volume %s, is in none of the node's directories for volumes (%s); put its directory back into paths, or remove both by hand",
		path, volume.Name, cmp.Or(strings.Join(p.basePaths(), ", "), "there are none"))
}

func (p *provisioner) basePaths() []string {
	var paths []string
	for _, b := range p.bases {
		paths = append(paths, b.path)
	}
	return paths
}

func (p *provisioner) baseAt(path string) *base {
	if i := slices.IndexFunc(p.bases, func(b *base) bool { return b.path == path }); i >= 0 {
		return p.bases[i]
	}
	return nil
}

// is says whether what is at an entry's path is the directory that was made for it.
func (p *provisioner) is(b *base, e entry) bool {
	dir, err := b.volume(e.Path)
	if err != nil {
		return false
	}
	defer dir.Close()
	id, err := inodeOf(dir)
	return err == nil && id == e.Inode
}
