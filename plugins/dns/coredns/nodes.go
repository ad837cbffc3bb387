package coredns

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	corednsplugin "github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnsutil"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// nodesTTL is how long the address of a node is kept, in seconds: k3s's figure.
const nodesTTL = 60

// nodeNames are the names and internal addresses of the cluster's nodes: what k3s keeps
// in a file NodeHosts.
type nodeNames struct {
	mu    sync.Mutex
	nodes map[string][]netip.Addr // by name

	table atomic.Pointer[nodeTable]
}

// nodeTable is what queries read. It does not change.
type nodeTable struct {
	addrs map[string][]netip.Addr // by name, "node-1."
	names map[netip.Addr][]string
}

func newNodeNames() *nodeNames {
	n := &nodeNames{nodes: map[string][]netip.Addr{}}
	n.table.Store(&nodeTable{})
	return n
}

// run follows the Nodes until ctx ends.
func (n *nodeNames) run(ctx context.Context, api *api) error {
	nodes := api.client.CoreV1().Nodes()
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return nodes.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return nodes.Watch(ctx, o)
			},
		}, api.client),
		ObjectType: &corev1.Node{},
		Transform: func(object any) (any, error) {
			if node, ok := object.(*corev1.Node); ok {
				return &corev1.Node{
					ObjectMeta: metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion},
					Status:     corev1.NodeStatus{Addresses: node.Status.Addresses},
				}, nil
			}
			return object, nil
		},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { n.learn(object) },
			UpdateFunc: func(_, object any) { n.learn(object) },
			DeleteFunc: func(object any) {
				if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = gone.Obj
				}
				if node, ok := object.(*corev1.Node); ok {
					n.set(node.Name, nil)
				}
			},
		},
	})
	controller.RunWithContext(ctx)
	return nil
}

func (n *nodeNames) learn(object any) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return
	}
	var addrs []netip.Addr
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			addrs = append(addrs, addr.Unmap().WithZone(""))
		}
	}
	n.set(node.Name, addrs)
}

// set makes a new table when something has changed.
func (n *nodeNames) set(name string, addrs []netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(n.nodes[name], addrs) {
		return
	}
	n.nodes[name] = addrs
	if len(addrs) == 0 {
		delete(n.nodes, name)
	}
	table := &nodeTable{addrs: map[string][]netip.Addr{}, names: map[netip.Addr][]string{}}
	for name, addrs := range n.nodes {
		fqdn := strings.ToLower(dns.Fqdn(name))
		table.addrs[fqdn] = addrs
		for _, addr := range addrs {
			table.names[addr] = append(table.names[addr], fqdn)
		}
	}
	for _, names := range table.names {
		slices.Sort(names)
	}
	n.table.Store(table)
}

// nodesHandler is nodeNames in one chain.
type nodesHandler struct {
	nodes *nodeNames
	next  corednsplugin.Handler
}

func setupNodes(c *caddy.Controller) error {
	p, err := partsOf(c)
	if err != nil {
		return err
	}
	dnsserver.GetConfig(c).AddPlugin(func(next corednsplugin.Handler) corednsplugin.Handler {
		return &nodesHandler{nodes: p.nodes, next: next}
	})
	return nil
}

// Name implements plugin.Handler.
func (*nodesHandler) Name() string { return directiveNodes }

// ServeDNS implements plugin.Handler.
func (h *nodesHandler) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	answers, known := h.nodes.table.Load().lookup(state.Name(), state.QName(), state.QType())
	if !known {
		return corednsplugin.NextOrFailure(h.Name(), h.next, ctx, w, r)
	}
	reply := new(dns.Msg)
	reply.SetReply(r)
	reply.Authoritative = true
	reply.Answer = answers
	if err := w.WriteMsg(reply); err != nil {
		return dns.RcodeServerFailure, err
	}
	return dns.RcodeSuccess, nil
}

// lookup answers for a name in lower case; asked is how it was asked for. known is false
// for a name that is no node's.
func (t *nodeTable) lookup(name, asked string, qtype uint16) (answers []dns.RR, known bool) {
	header := dns.RR_Header{Name: asked, Rrtype: qtype, Class: dns.ClassINET, Ttl: nodesTTL}
	if addrs, ok := t.addrs[name]; ok {
		for _, addr := range addrs {
			switch {
			case qtype == dns.TypeA && addr.Is4():
				answers = append(answers, &dns.A{Hdr: header, A: addr.AsSlice()})
			case qtype == dns.TypeAAAA && addr.Is6():
				answers = append(answers, &dns.AAAA{Hdr: header, AAAA: addr.AsSlice()})
			}
		}
		return answers, true
	}
	if qtype != dns.TypePTR || len(t.names) == 0 {
		return nil, false
	}
	addr, err := netip.ParseAddr(dnsutil.ExtractAddressFromReverse(name))
	if err != nil {
		return nil, false
	}
	for _, node := range t.names[addr] {
		answers = append(answers, &dns.PTR{Hdr: header, Ptr: node})
	}
	return answers, len(answers) > 0
}
