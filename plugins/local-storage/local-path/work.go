package localpath

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/keymutex"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/k3m-io/k3m/plugins/local-storage/local-path/pathpattern"
)

// removalTimeout bounds one attempt to remove a volume; the next one goes on where it
// ended. It keeps a volume of endless files from holding up others for ever.
const removalTimeout = 10 * time.Minute

// work is one run of the component.
type work struct {
	log        hclog.Logger
	client     kubernetes.Interface
	node       string
	nodeObject *corev1.Node
	bases      []*base
	pattern    *pathpattern.Pattern
	quotas     quotas
	ledger     *ledger
	started    func(*work) // called once volumes are there
	ready      func()

	volumes cache.Store // set before any goroutine is started
}

// run works until ctx ends or something can't go on.
//
// Three watches: all claims (the API can't select those of a node), the volumes with this
// node's label, and the StorageClasses. Nothing is listed again without a reason: no
// informer resyncs.
func (w *work) run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.Background())
	factory := informers.NewSharedInformerFactoryWithOptions(w.client, 0, informers.WithTransform(stripManagedFields))
	own := informers.NewSharedInformerFactoryWithOptions(w.client, 0, informers.WithTransform(stripManagedFields),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = nodeLabel + "=" + w.node }))
	claims, classes := factory.Core().V1().PersistentVolumeClaims().Informer(), factory.Storage().V1().StorageClasses().Informer()
	volumes := own.Core().V1().PersistentVolumes().Informer()
	w.volumes = volumes.GetStore()
	w.started(w)

	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&clientcorev1.EventSinkImpl{Interface: w.client.CoreV1().Events("")})

	space := newCapacities(w.client, w.log, w.nodeObject, w.bases, classes.GetStore())
	p := &provisioner{
		node: w.node, bases: w.bases, pattern: w.pattern, quotas: w.quotas, ledger: w.ledger, client: w.client, log: w.log,
		events:  broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: provisionerName, Host: w.node}),
		volumes: w.volumes, spaceChanged: space.changed, busy: keymutex.NewHashed(256),
	}
	resizes, settling := newResizer(p, claims.GetStore()), newSettler(p)
	if err := handle(claims, func(object any) { resizes.seen(object); settling.claimSeen(object) }); err != nil {
		return err
	}
	if err := handle(volumes, settling.volumeSeen); err != nil {
		return err
	}
	if err := handle(classes, func(any) { space.changed(false) }); err != nil {
		return err
	}
	var workers sync.WaitGroup
	provisioning := w.controller(ctx, p, &workers, claims, volumes, classes)

	group, ctx := errgroup.WithContext(ctx)
	defer own.Shutdown()
	defer factory.Shutdown()
	factory.Start(ctx.Done())
	own.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), claims.HasSynced, volumes.HasSynced, classes.HasSynced) {
		return nil
	}
	settling.all()
	group.Go(func() error { return space.run(ctx, w.ready) })
	group.Go(func() error { return resizes.run(ctx) })
	group.Go(func() error { return settling.run(ctx) })
	group.Go(func() error {
		provisioning.Run(ctx) // returns while workers may make or remove a volume
		workers.Wait()
		return nil
	})
	return group.Wait()
}

// controller is the library's part: it decides when a claim wants a volume and when a
// volume is to go, and calls the provisioner.
func (w *work) controller(ctx context.Context, p *provisioner, workers *sync.WaitGroup, claims cache.SharedIndexInformer, volumes, classes cache.SharedInformer) *controller.ProvisionController {
	retries := func() workqueue.TypedRateLimiter[string] {
		return workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry)
	}
	provisioning := controller.NewProvisionController(ctx, w.client, provisionerName, p,
		controller.LeaderElection(false), // each node has its own claims
		controller.ClaimsInformer(claims), controller.VolumesInformer(volumes), controller.ClassesInformer(classes),
		controller.ResyncPeriod(0),
		controller.RateLimiter(retries()),
		controller.FailedProvisionThreshold(0), controller.FailedDeleteThreshold(0), // never give up
		controller.CreateProvisionedPVLimiter(retries()),
		controller.DeletionTimeout(removalTimeout),
		// A volume that is deleted before its claim keeps its object until its directory is gone.
		controller.AddFinalizer(true),
	)
	provisioning.ControllerWaitGroup(workers)
	return provisioning
}

func handle(informer cache.SharedInformer, seen func(any)) error {
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    seen,
		UpdateFunc: func(_, object any) { seen(object) },
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			seen(object)
		},
	})
	return err
}

// stripManagedFields halves what an object takes in memory. An update without them leaves
// them as they are.
func stripManagedFields(object any) (any, error) {
	if o, err := meta.Accessor(object); err == nil {
		o.SetManagedFields(nil)
	}
	return object, nil
}
