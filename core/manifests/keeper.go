package manifests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/core/objects"
)

// Options are what a Keeper needs.
type Options struct {
	// Dir is the folder: <data-dir>/server/manifests. It is made, with mode 0700, when it is missing.
	Dir string
	// Node is this server's name.
	Node string
	// Config is a client of the API that may do anything.
	Config *rest.Config
	// Health hears how the files fare; may be nil.
	Health *health.Board
	Logger *slog.Logger
}

// Keeper keeps the objects of a folder's files applied. Make it with New, run it once with Run.
type Keeper struct {
	opts     Options
	client   kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface
	wake     chan struct{} // holds one token when there may be work

	// The rest is the loop's.
	folder    folder
	objects   *objects.Client
	recorder  record.EventRecorder
	records   map[string]*entry // by file
	told      map[string]string // by file: what was said of it last
	checked   map[string]bool   // objects that no component has
	installed bool
	seeded    bool
}

const (
	// pace bounds how often all files are gone through, after a burst: what changes meanwhile goes
	// into the next time.
	pace      = time.Second
	paceBurst = 5
	// What failed is tried again after retryFirst, and then ever later, up to retryLast: what keeps it
	// from succeeding is somewhere else, and tells nobody when it ends.
	retryFirst = 2 * time.Second
	retryLast  = 2 * time.Minute
	// busyRetry is how long a file that is being written is left alone, when nothing tells of its end:
	// the kernel counts a writer for a moment after it has told that it is done.
	busyRetry = 500 * time.Millisecond
)

// New makes no request.
func New(o Options) (*Keeper, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	k := &Keeper{
		opts: o, wake: make(chan struct{}, 1), folder: folder{root: o.Dir},
		records: map[string]*entry{}, told: map[string]string{}, checked: map[string]bool{},
	}
	var errs [3]error
	k.client, errs[0] = kubernetes.NewForConfig(o.Config)
	k.dynamic, errs[1] = dynamic.NewForConfig(o.Config)
	k.metadata, errs[2] = metadata.NewForConfig(o.Config)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("keep manifests: %w", err)
	}
	return k, nil
}

// Run works until ctx ends; it returns nil then.
func (k *Keeper) Run(ctx context.Context) error {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.client.CoreV1().Events("")})
	k.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: fieldManager})
	k.objects = objects.New(ctx, objects.Options{
		Discovery: k.client.Discovery(), Dynamic: k.dynamic, Metadata: k.metadata,
		Manager: fieldManager, Selector: label, Strict: true, DefaultNamespace: corev1.NamespaceDefault, Changed: k.raise,
	})
	defer k.objects.End()
	loops, ctx := errgroup.WithContext(ctx)
	loops.Go(func() error { return k.follow(ctx) })
	loops.Go(func() error { return k.loop(ctx) })
	err := loops.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

func (k *Keeper) raise() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// follow wakes the loop when a file has changed.
func (k *Keeper) follow(ctx context.Context) error {
	for {
		if err := os.MkdirAll(k.opts.Dir, 0o700); err != nil {
			return fmt.Errorf("keep manifests: %w", err)
		}
		w, err := newTreeWatch(k.opts.Dir)
		if err != nil {
			return fmt.Errorf("keep manifests: %w: a higher fs.inotify.max_user_instances or max_user_watches may help", err)
		}
		stop := context.AfterFunc(ctx, func() { w.Close() })
		for err == nil { // what came before the watch is seen too
			k.raise()
			err = w.next()
		}
		if stop() {
			w.Close()
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the watch was closed for that
		}
		if !errors.Is(err, errRootGone) {
			k.opts.Logger.Warn("the manifests folder is watched anew", "error", err)
		}
	}
}

// loop goes through all files each time that it is woken.
func (k *Keeper) loop(ctx context.Context) error {
	limit := rate.NewLimiter(rate.Every(pace), paceBurst)
	backoff := retryFirst
	var retry <-chan time.Time
	for {
		select {
		case <-k.wake:
		case <-retry:
		case <-ctx.Done():
			return nil
		}
		if err := limit.Wait(ctx); err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		busy, failed := k.sync(ctx)
		retry = nil
		switch {
		case ctx.Err() != nil:
			return nil
		case busy:
			retry = time.After(busyRetry)
		case failed:
			retry = time.After(backoff)
			backoff = min(2*backoff, retryLast)
		default:
			backoff = retryFirst
		}
	}
}
