package localpath

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// A volume grows while it is used: only its limit changes. The claim's owner raises the
// request; the limit is raised, then the PersistentVolume's capacity, then the claim's
// status, each of which can be repeated after a crash. A smaller request is refused by
// the API.

// Retries of a volume that could not grow: some seconds at first, minutes at last.
const firstRetry, lastRetry = 2 * time.Second, 5 * time.Minute

// resizer makes volumes of this node grow.
type resizer struct {
	*provisioner
	claims cache.Store
	queue  workqueue.TypedRateLimitingInterface[string]
}

func newResizer(p *provisioner, claims cache.Store) *resizer {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)
	return &resizer{provisioner: p, claims: claims, queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter,
		workqueue.TypedRateLimitingQueueConfig[string]{Name: "resizes"})}
}

// seen takes up a claim that may want to grow.
func (r *resizer) seen(object any) {
	claim, ok := object.(*corev1.PersistentVolumeClaim)
	if !ok || claim.Spec.VolumeName == "" || claim.DeletionTimestamp != nil || claim.Status.Phase != corev1.ClaimBound {
		return
	}
	wanted, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if wanted.Cmp(has) > 0 {
		r.queue.Add(claim.Namespace + "/" + claim.Name)
	}
}

// run works until ctx ends.
func (r *resizer) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.queue.ShutDown)
	defer stop()
	for {
		key, closing := r.queue.Get()
		if closing {
			return nil
		}
		if err := r.resize(ctx, key); err != nil && ctx.Err() == nil {
			r.log.Warn("could not resize a volume; trying again", "claim", key, "error", err)
			r.queue.AddRateLimited(key)
		} else {
			r.queue.Forget(key)
		}
		r.queue.Done(key)
	}
}

func (r *resizer) resize(ctx context.Context, key string) error {
	object, ok, err := r.claims.GetByKey(key)
	if err != nil || !ok {
		return err
	}
	claim := object.(*corev1.PersistentVolumeClaim)
	object, ok, err = r.volumes.GetByKey(claim.Spec.VolumeName)
	if err != nil || !ok {
		return err // of another node, or of another provisioner
	}
	volume := object.(*corev1.PersistentVolume)
	if ref := volume.Spec.ClaimRef; !r.own(volume) || ref == nil || ref.UID != claim.UID || volume.DeletionTimestamp != nil {
		return nil
	}
	wanted, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], volume.Spec.Capacity[corev1.ResourceStorage]
	if wanted.Cmp(has) > 0 {
		refused, err := r.grow(volume, wanted.Value(), has.Value())
		if err != nil {
			return err
		}
		if refused != nil {
			// The kubelet's and the scheduler's view stays: the volume is as large as it was.
			r.events.Event(claim, corev1.EventTypeWarning, reasonNotResized, refused.Error())
			if errors.Is(refused, errNoSpace) {
				return refused // space may come to be free
			}
			return nil
		}
		if err := r.patchCapacity(ctx, volume, wanted); err != nil {
			return err
		}
	}
	if err := r.patchStatus(ctx, claim, wanted); err != nil {
		return err
	}
	r.events.Eventf(claim, corev1.EventTypeNormal, reasonResized, "the volume's size is now %s", wanted.String())
	return nil
}

var errNoSpace = errors.New("not enough free space")

// grow raises a volume's limit. What the claim's owner has to know is refused; err is the
// component's own trouble.
func (r *resizer) grow(volume *corev1.PersistentVolume, wanted, has int64) (refused, err error) {
	r.busy.LockKey(volume.Name)
	defer func() { _ = r.busy.UnlockKey(volume.Name) }()
	b, path, err := r.locate(volume)
	if err != nil {
		return nil, err
	}
	unlimited, err := r.limited(b, path)
	if err != nil {
		return nil, err
	}
	if unlimited != nil {
		return fmt.Errorf("a volume grows only where its size is enforced, and on node %s: %w; it can be used beyond its size as it is", r.node, unlimited), nil
	}
	free, _, err := b.free()
	if err != nil {
		return nil, err
	}
	if wanted-has > free {
		return fmt.Errorf("%w on node %s: the claim wants %s more, and %s is free in %s", errNoSpace, r.node, quantity(wanted-has), quantity(free), b.path), nil
	}
	dir, err := b.volume(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return nil, r.quotas.limit(dir, volume.Name, wanted)
}

func (r *resizer) patchCapacity(ctx context.Context, volume *corev1.PersistentVolume, size resource.Quantity) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"capacity": map[string]any{"storage": size}}})
	if err != nil {
		return fmt.Errorf("resize volume %s: %w", volume.Name, err)
	}
	if _, err := r.client.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("resize volume %s: %w", volume.Name, err)
	}
	return nil
}

func (r *resizer) patchStatus(ctx context.Context, claim *corev1.PersistentVolumeClaim, size resource.Quantity) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"capacity": map[string]any{"storage": size}}})
	if err != nil {
		return fmt.Errorf("resize claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	_, err = r.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("resize claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}
