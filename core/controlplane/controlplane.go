package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/supervisor"
)

// How long stopping may take: the controllers are asked first, then the API server; the sum is
// below the 10 s after which a service manager loses patience.
const (
	controllerStopTimeout = 2 * time.Second
	stopTimeout           = 4 * time.Second
	// bootGrace is how long a stop during the boot waits for the boot; nothing else needs
	// time then.
	bootGrace = 4 * time.Second
)

// readyInterval is how often readiness is looked at during the boot, in process: a request
// without a connection.
const readyInterval = 10 * time.Millisecond

// ControlPlane is a control plane. Make it with New, run it once with Run.
type ControlPlane struct {
	opts     Options
	joinable chan struct{}
	ready    chan struct{}
	built    chan struct{}

	builtOnce sync.Once

	mu    sync.Mutex
	port  int
	admin *rest.Config
}

// New returns a control plane that does nothing yet.
func New(opts Options) *ControlPlane {
	return &ControlPlane{opts: opts, joinable: make(chan struct{}), ready: make(chan struct{}), built: make(chan struct{})}
}

// Joinable is closed when the port is open and the token and the authorities are in their
// files. A node that joins now waits in the handshake until the supervisor answers, a little
// before APIReady.
func (c *ControlPlane) Joinable() <-chan struct{} { return c.joinable }

// APIReady is closed when the API server's /readyz is good for the first time.
func (c *ControlPlane) APIReady() <-chan struct{} { return c.ready }

// Port is the API's, known once Joinable is closed.
func (c *ControlPlane) Port() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.port
}

// AdminConfig is a client of the API server in this process that may do anything, for the
// core itself. It is known once APIReady is closed, and nil before.
func (c *ControlPlane) AdminConfig() *rest.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.admin == nil {
		return nil
	}
	return rest.CopyConfig(c.admin)
}

// Run runs the control plane until ctx ends, and then stops it within 8 seconds: controllers,
// API server, datastore. It returns an error that names the part when one can't be started or
// ends by itself; the rest is stopped then too.
func (c *ControlPlane) Run(ctx context.Context) error {
	if err := c.opts.check(); err != nil {
		return err
	}
	start := time.Now()
	listener, err := c.listen(ctx)
	if err != nil {
		return err
	}
	defer listener.Close()
	creds, store, err := c.prepare(ctx, listener)
	if store != nil {
		defer store.Close()
	}
	if ctx.Err() != nil {
		return nil // an error would be that of the stop
	}
	if err != nil {
		return err
	}
	close(c.joinable)
	klog.V(1).InfoS("datastore and certificates ready", "after", since(start))

	// The API server outlives ctx: controllers are stopped before it.
	stopAPI := make(chan struct{})
	apiCtx := wait.ContextForChannel(stopAPI)
	api, err := c.newAPIServer(apiCtx, listener, creds, store.Endpoint, c.supervise(creds))
	if err != nil {
		close(stopAPI)
		return fmt.Errorf("start %s: %w", APIServer, err)
	}
	klog.V(1).InfoS("API server built", "after", since(start))

	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	apiDone := make(chan struct{})
	go func() {
		defer close(apiDone)
		err := guard(func() error { return api.run(apiCtx) })
		cancel(ended(APIServer, err))
	}()
	go func() {
		select {
		case err := <-store.Failed():
			cancel(ended("datastore", err))
		case <-apiDone:
		}
	}()

	booted := c.waitReady(runCtx, api, apiDone)
	if booted && runCtx.Err() == nil {
		c.mu.Lock()
		c.admin = rest.CopyConfig(api.loopback)
		c.mu.Unlock()
		klog.V(1).InfoS("API ready", "after", since(start), "port", c.Port())
		close(c.ready)
		c.runControllers(runCtx, cancel, creds)
	}
	if !booted {
		klog.InfoS("the API server is still starting; stopping without it")
		return why(ctx, runCtx)
	}
	close(stopAPI)
	select {
	case <-apiDone:
	case <-time.After(stopTimeout):
		klog.InfoS("the API server has requests that don't end; stopping without them")
	}
	return why(ctx, runCtx)
}

// prepare loads keys and opens the datastore, at the same time. It returns the store, if any,
// also with an error.
func (c *ControlPlane) prepare(ctx context.Context, listener net.Listener) (*credentials, *datastore.Store, error) {
	port := listener.Addr().(*net.TCPAddr).Port
	c.mu.Lock()
	c.port = port
	c.mu.Unlock()
	database := DatabaseFile(c.opts.DataDir)
	exists, err := datastore.Exists(database)
	if err != nil {
		return nil, nil, err
	}
	var creds *credentials
	keys := func() (err error) {
		creds, err = c.prepareFiles(port, exists)
		return err
	}
	var store *datastore.Store
	open := func() (err error) {
		store, err = datastore.Open(ctx, datastore.Options{
			File: database, Socket: c.opts.socket(), Sync: c.opts.Sync, Health: c.opts.Health,
		})
		return err
	}
	if !exists {
		// Keys first: a datastore without keys could not be started again.
		if err := keys(); err != nil {
			return nil, nil, err
		}
		err := open()
		return creds, store, err
	}
	var g errgroup.Group
	g.Go(keys)
	g.Go(open)
	err = g.Wait()
	return creds, store, err
}

// supervise mounts the supervisor in front of the API.
func (c *ControlPlane) supervise(creds *credentials) wrapHandler {
	return func(api http.Handler, loopback *rest.Config) (http.Handler, error) {
		s, err := supervisor.New(supervisor.Options{
			PKI:       creds.pki,
			Token:     creds.token,
			Client:    loopback,
			Component: c.opts.Component,
			Services:  c.opts.Services,
			NodeName:  c.opts.NodeName,
			Local:     LocalAddress(c.opts.BindAddress),
			API:       c.apiNames(),
			Cluster:   c.clusterFacts(),
		})
		if err != nil {
			return nil, err
		}
		return s.Wrap(api), nil
	}
}

// waitReady waits until /readyz is good or the server has ended, and says whether it may be told
// to stop now. When ctx ends first it goes on for bootGrace: a server that is interrupted while
// it starts ends the whole process with a stack trace.
func (c *ControlPlane) waitReady(ctx context.Context, api *apiServer, apiDone <-chan struct{}) bool {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	stopping, grace := ctx.Done(), (<-chan time.Time)(nil)
	for !api.isReady(context.WithoutCancel(ctx)) {
		select {
		case <-ticker.C:
		case <-stopping:
			stopping, grace = nil, time.After(bootGrace)
		case <-grace:
			return false
		case <-apiDone:
			return true
		}
	}
	return true
}

// runControllers runs controller-manager and scheduler until ctx ends; one that ends by itself
// cancels everything.
func (c *ControlPlane) runControllers(ctx context.Context, cancel context.CancelCauseFunc, creds *credentials) {
	var running sync.WaitGroup
	for name, run := range map[string]func(context.Context, *credentials) error{
		ControllerManager: c.runControllerManager,
		Scheduler:         c.runScheduler,
	} {
		running.Go(func() {
			err := guard(func() error { return run(ctx, creds) })
			cancel(ended(name, err)) // does nothing when ctx ended first
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	<-ctx.Done()
	select {
	case <-done:
	case <-time.After(controllerStopTimeout + time.Second):
		klog.InfoS("controllers are still running; stopping without them")
	}
}

// why says why everything ended: nil when ctx did, which asked for it.
func why(ctx, runCtx context.Context) error {
	cause := context.Cause(runCtx)
	if ctx.Err() != nil && errors.Is(cause, context.Cause(ctx)) {
		return nil
	}
	return cause
}

// ended is the error of a part that ended although nobody asked it to.
func ended(part string, err error) error {
	if err == nil {
		return fmt.Errorf("%s ended by itself", part)
	}
	return fmt.Errorf("%s: %w", part, err)
}

// guard turns a panic of f into an error, so that the rest is stopped in order.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			klog.ErrorS(nil, "panic", "value", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

func since(start time.Time) string { return time.Since(start).Round(time.Millisecond).String() }
