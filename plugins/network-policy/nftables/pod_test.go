package nftables

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// testPod is a pod of the node: a network namespace on the bridge, and what the API has.
type testPod struct {
	*place
	node *node
	pod  *corev1.Pod
}

var podCount int

// plug makes the network of a pod, as the CNI does it: the record first.
func (n *node) plug(last int) *place {
	t := n.t
	t.Helper()
	p := newPlace(t)
	p.addrs = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.42.0.%d", last)), netip.MustParseAddr(fmt.Sprintf("fd42::%d", last))}
	for _, addr := range p.addrs {
		must(t, os.WriteFile(filepath.Join(n.records, "k3m", addr.String()), []byte("sandbox\neth0"), 0o600))
	}
	ns, err := netns.GetFromPath(p.namespace)
	must(t, err)
	defer func() { _ = ns.Close() }()
	podCount++
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("veth%d", podCount)
	attrs.MasterIndex = n.bridge.Attrs().Index
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}))
	port, err := netlink.LinkByName(attrs.Name)
	must(t, err)
	must(t, netlink.LinkSetHairpin(port, true))
	must(t, netlink.LinkSetUp(port))
	p.do(func() {
		for _, name := range []string{"lo", "eth0"} {
			link, err := netlink.LinkByName(name)
			must(t, err)
			if name == "eth0" {
				addAddress(t, link, p.addrs[0].String()+"/24")
				addAddress(t, link, p.addrs[1].String()+"/64")
			}
			must(t, netlink.LinkSetUp(link))
		}
		addRoute(t, "0.0.0.0/0", "10.42.0.1")
		addRoute(t, "::/0", "fd42::1")
	})
	unplugged := p.release
	p.release = func() {
		if link, err := netlink.LinkByName(attrs.Name); err == nil {
			must(t, netlink.LinkDel(link))
		}
		unplugged()
	}
	t.Cleanup(p.release)
	p.serve()
	return p
}

// unplug removes a pod's network, as the CNI does it.
func (n *node) unplug(p *place) {
	p.release()
	for _, addr := range p.addrs {
		must(n.t, os.Remove(filepath.Join(n.records, "k3m", addr.String())))
	}
}

// podObject is a Pod of the API without an address. labels are "app=web,tier=front".
func podObject(namespace, name, labels, nodeName string) *corev1.Pod {
	podCount++
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(fmt.Sprintf("uid-%d", podCount)),
			Labels: map[string]string{}, CreationTimestamp: metav1.Time{Time: time.Unix(int64(1e9+podCount), 0)},
		},
		Spec: corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{
			{Name: "web", ContainerPort: 80}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP},
		}}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, label := range strings.FieldsFunc(labels, func(r rune) bool { return r == ',' }) {
		key, value, _ := strings.Cut(label, "=")
		p.Labels[key] = value
	}
	return p
}

// withAddrs is the Pod once its addresses are known.
func withAddrs(p *corev1.Pod, addrs ...netip.Addr) *corev1.Pod {
	p = p.DeepCopy()
	p.Status.Phase, p.Status.PodIPs = corev1.PodRunning, nil
	for _, addr := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: addr.String()})
	}
	return p
}

// newPod makes a pod that runs, and whose status is known.
func (n *node) newPod(last int, namespace, name, labels string) *testPod {
	p := &testPod{node: n, place: n.plug(last)}
	p.pod = withAddrs(podObject(namespace, name, labels, nodeName), p.addrs...)
	n.api.put(p.pod)
	return p
}

// remotePod is the API's object of a pod on the other node; its addresses are elsewhere's.
func (n *node) remotePod(namespace, name, labels string, addrs ...string) *corev1.Pod {
	var parsed []netip.Addr
	for _, addr := range addrs {
		parsed = append(parsed, netip.MustParseAddr(addr))
	}
	p := withAddrs(podObject(namespace, name, labels, otherNode), parsed...)
	n.api.put(p)
	return p
}

// namespaceObjects makes namespaces; labels are as of podObject.
func (n *node) namespaces(labelsOf map[string]string) {
	for name, text := range labelsOf {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name}}}
		for _, label := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
			key, value, _ := strings.Cut(label, "=")
			ns.Labels[key] = value
		}
		n.api.put(ns)
	}
}

// policyObject reads the spec of a policy in a namespace.
func policyObject(namespace, name, spec string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		panic(fmt.Sprintf("policy %s: %v\n%s", name, err, spec))
	}
	if len(p.Spec.PolicyTypes) == 0 { // as the API server fills in
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	return p
}
