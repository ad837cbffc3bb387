package localpath

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
)

// settle decides what becomes of a directory that was made and whose PersistentVolume was
// not seen yet: the process may have ended in between, or the claim is gone. That
// something is not there it asks the API itself, not a cache; what it can't find out stays
// as it is. Nobody can have used the
// directory: without a PersistentVolume no pod has it.
//
//	the PersistentVolume is there            forget the entry
//	the claim still waits for this node      leave it; Provision takes it up
//	the claim is gone, or on another node    remove directory and entry
func (p *provisioner) settle(ctx context.Context, pv string) error {
	p.busy.LockKey(pv)
	defer func() { _ = p.busy.UnlockKey(pv) }()
	e, ok := p.ledger.get(pv)
	if !ok {
		return nil
	}
	if object, there, err := p.volumes.GetByKey(pv); err == nil && there && p.holds(object.(*corev1.PersistentVolume), e) {
		return p.ledger.remove(pv)
	}
	claim, err := p.client.CoreV1().PersistentVolumeClaims(e.Namespace).Get(ctx, e.Claim, metav1.GetOptions{})
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("settle volume %s: %w", pv, err)
	case err == nil && string(claim.UID) == e.ClaimUID && claim.Annotations[selectedNode] == p.node && claim.Spec.VolumeName == "":
		return nil // still wanted
	}
	// After the claim, so that a PersistentVolume which was made meanwhile is seen.
	volume, err := p.client.CoreV1().PersistentVolumes().Get(ctx, pv, metav1.GetOptions{})
	switch {
	case err == nil && p.holds(volume, e):
		return p.ledger.remove(pv)
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("settle volume %s: %w", pv, err)
	}
	if b := p.baseAt(e.Base); b != nil && p.is(b, e) {
		p.log.Info("removing a directory that no volume came to use", "volume", pv, "path", e.Base+"/"+e.Path)
		if err := p.removeDirectory(ctx, b, e.Path); err != nil {
			return err
		}
		p.spaceChanged(false)
	}
	return p.ledger.remove(pv)
}

// holds says whether a PersistentVolume is the one that a directory was made for.
func (p *provisioner) holds(volume *corev1.PersistentVolume, e entry) bool {
	return p.own(volume) && volume.Spec.Local.Path == e.Base+"/"+e.Path
}

// settler calls settle when something happens that may decide an entry of the ledger.
type settler struct {
	*provisioner
	queue workqueue.TypedRateLimitingInterface[string] // names of PersistentVolumes
}

func newSettler(p *provisioner) *settler {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)
	return &settler{provisioner: p, queue: workqueue.NewTypedRateLimitingQueueWithConfig(limiter,
		workqueue.TypedRateLimitingQueueConfig[string]{Name: "unbound"})}
}

// all takes up what an earlier process has left.
func (s *settler) all() {
	for _, pv := range s.ledger.names() {
		s.queue.Add(pv)
	}
}

// claimSeen takes up the directory of a claim that has changed or is gone.
func (s *settler) claimSeen(object any) {
	if claim, ok := object.(*corev1.PersistentVolumeClaim); ok {
		pv := "pvc-" + string(claim.UID) // as the library names them
		if _, waits := s.ledger.get(pv); waits {
			s.queue.Add(pv)
		}
	}
}

// volumeSeen takes up the directory of a PersistentVolume that has come.
func (s *settler) volumeSeen(object any) {
	if volume, ok := object.(*corev1.PersistentVolume); ok {
		if _, waits := s.ledger.get(volume.Name); waits {
			s.queue.Add(volume.Name)
		}
	}
}

// run works until ctx ends.
func (s *settler) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, s.queue.ShutDown)
	defer stop()
	for {
		pv, closing := s.queue.Get()
		if closing {
			return nil
		}
		if err := s.settle(ctx, pv); err != nil && ctx.Err() == nil {
			s.log.Warn("could not find out what becomes of a directory; trying again", "volume", pv, "error", err)
			s.queue.AddRateLimited(pv)
		} else {
			s.queue.Forget(pv)
		}
		s.queue.Done(pv)
	}
}
