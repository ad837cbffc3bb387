package ports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// Options say what is watched, and who wants to know.
type Options struct {
	// Client lists and watches Services, in all namespaces.
	Client kubernetes.Interface
	// NodeIPs are the addresses that Services may be given: who listens on another one
	// alone (a loopback address, the pods' gateway) holds nothing.
	NodeIPs []netip.Addr
	// Report gets the ports that Services ask for and their holders, sorted by number and
	// protocol, when they are first known (nil for none) and at each change. It is called
	// by one goroutine, which waits for it.
	Report func([]nodestatus.PortHolder)
	// Logger; nil is slog.Default().
	Logger *slog.Logger

	// proc is /proc but in tests, netDir where its tables of sockets are.
	proc, netDir string
}

// recheck is how often a port is looked at while somebody holds it: no event tells that a
// socket was closed, and a Service that waits for it is to have it within two seconds.
const recheck = time.Second

// Watch reports until ctx ends (then it returns nil). As long as no port that is asked for
// is held, it costs nothing: it wakes up when a Service changes.
func Watch(ctx context.Context, o Options) error {
	w := &watcher{Options: o, names: map[uint64]string{}}
	w.proc, w.netDir = cmp.Or(o.proc, "/proc"), cmp.Or(o.netDir, "/proc/self/net")
	w.Logger = cmp.Or(o.Logger, slog.Default())
	return w.run(ctx)
}

type watcher struct {
	Options
	names map[uint64]string // holders by inode: a socket keeps its inode
	last  []nodestatus.PortHolder
	said  bool
	// failed is the last failure to look, so that it is logged once.
	failed string
}

func (w *watcher) run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	services := cache.NewSharedIndexInformer(loadBalancers(w.Client), &corev1.Service{}, 0, nil)
	if err := services.SetTransform(portsAlone); err != nil {
		return fmt.Errorf("watch the ports of Services: %w", err)
	}
	_, err := services.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke() },
		UpdateFunc: func(any, any) { poke() },
		DeleteFunc: func(any) { poke() },
	})
	if err != nil {
		return fmt.Errorf("watch the ports of Services: %w", err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		services.RunWithContext(ctx)
	}()
	defer func() { <-stopped }()
	if !cache.WaitForCacheSync(ctx.Done(), services.HasSynced) {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if w.look(wanted(services.GetStore().List())) {
			timer.Reset(recheck)
		}
	}
}

// port is what a Service may ask for.
type port struct {
	number   uint16
	protocol string
}

// maxPorts is how many ports are told of: anybody who may create a Service asks for more of
// them, and a node whose NodeComponents object got too large for the API could say nothing any
// more of its components either. The object may hold four times as many.
const maxPorts = 1024

// wanted are the ports of all Services, each once, maxPorts of them: those of the oldest
// Services, so that a new one takes no port from another.
func wanted(services []any) []port {
	var all []*corev1.Service
	for _, obj := range services {
		if service, ok := obj.(*corev1.Service); ok {
			all = append(all, service)
		}
	}
	slices.SortFunc(all, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	found := map[port]bool{}
	for _, service := range all {
		for _, p := range service.Spec.Ports {
			if len(found) < maxPorts {
				found[port{uint16(p.Port), string(p.Protocol)}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b port) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.protocol, b.protocol))
	})
}

// look reports who holds the ports, if that is news, and says whether to look again soon.
func (w *watcher) look(ports []port) (again bool) {
	sockets := map[string][]socket{}
	var errs error
	for _, p := range ports {
		if _, done := sockets[p.protocol]; done {
			continue
		}
		var err error
		sockets[p.protocol], err = listening(w.netDir, p.protocol)
		errs = errors.Join(errs, err)
	}
	if errs != nil {
		// Nothing is said of ports that could not be looked at.
		if w.failed != errs.Error() {
			w.failed = errs.Error()
			w.Logger.Error("the ports of Services stay unassigned on this node", "err", errs)
		}
		return true
	}
	w.failed = ""
	names := map[uint64]string{}
	var report []nodestatus.PortHolder
	for _, p := range ports {
		entry := nodestatus.PortHolder{Protocol: p.protocol, Port: p.number}
		if s, held := w.holding(sockets[p.protocol], p.number); held {
			name, known := w.names[s.inode]
			if !known {
				name = owner(w.proc, s.inode)
			}
			names[s.inode], entry.Holder, again = name, name, true
		}
		report = append(report, entry)
	}
	w.names = names
	if !w.said || !slices.Equal(report, w.last) {
		w.said, w.last = true, report
		w.Report(slices.Clone(report))
	}
	return again
}

// holding finds the socket that listens on a port of the node's addresses.
func (w *watcher) holding(sockets []socket, number uint16) (socket, bool) {
	for _, s := range sockets {
		if s.local.Port() == number && (s.local.Addr().IsUnspecified() || slices.Contains(w.NodeIPs, s.local.Addr())) {
			return s, true
		}
	}
	return socket{}, false
}

// loadBalancers lists and watches Services of type LoadBalancer alone.
func loadBalancers(client kubernetes.Interface) cache.ListerWatcher {
	services := client.CoreV1().Services(metav1.NamespaceAll)
	only := fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return services.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return services.Watch(ctx, o)
		},
	}, client)
}

// portsAlone keeps of a Service what is needed.
func portsAlone(obj any) (any, error) {
	service, ok := obj.(*corev1.Service)
	if !ok {
		return obj, nil
	}
	kept := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: service.Namespace, Name: service.Name, UID: service.UID, ResourceVersion: service.ResourceVersion,
		CreationTimestamp: service.CreationTimestamp,
	}}
	for _, p := range service.Spec.Ports {
		kept.Spec.Ports = append(kept.Spec.Ports, corev1.ServicePort{Port: p.Port, Protocol: p.Protocol})
	}
	return kept, nil
}
