package flannel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The annotations of flannel's kube subnet manager, under its usual prefix, so that
// tools which read them work here too.
const (
	annotationPrefix        = "flannel.alpha.coreos.com/"
	annotationManaged       = annotationPrefix + "kube-subnet-manager"
	annotationBackendType   = annotationPrefix + "backend-type"
	annotationBackendData   = annotationPrefix + "backend-data"
	annotationBackendV6Data = annotationPrefix + "backend-v6-data"
	annotationPublicIP      = annotationPrefix + "public-ip"
	annotationPublicIPv6    = annotationPrefix + "public-ipv6"
	// A user may set these on a Node whose address the others see differently (NAT).
	annotationPublicIPOverwrite   = annotationPrefix + "public-ip-overwrite"
	annotationPublicIPv6Overwrite = annotationPrefix + "public-ipv6-overwrite"
)

// errNoLease says that no flannel runs on a node yet.
var errNoLease = errors.New("node has no flannel annotations")

// slimNode keeps of a Node what leases needs; a full one is tens of kilobytes. It is a
// cache.TransformFunc, which may see an object twice.
func slimNode(obj any) (any, error) {
	node, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	slim := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion,
			CreationTimestamp: node.CreationTimestamp,
		},
		Spec: corev1.NodeSpec{PodCIDRs: node.Spec.PodCIDRs},
	}
	if len(slim.Spec.PodCIDRs) == 0 && node.Spec.PodCIDR != "" {
		slim.Spec.PodCIDRs = []string{node.Spec.PodCIDR}
	}
	for key, value := range node.Annotations {
		if strings.HasPrefix(key, annotationPrefix) {
			if slim.Annotations == nil {
				slim.Annotations = map[string]string{}
			}
			slim.Annotations[key] = value
		}
	}
	return slim, nil
}

// leaseOf reads another node's lease off its object. Families that the cluster has not
// are left out. The error is errNoLease when no flannel has been there.
func (p *plan) leaseOf(node *corev1.Node) (lease.Lease, error) {
	a := node.Annotations
	if a[annotationManaged] != "true" {
		return lease.Lease{}, errNoLease
	}
	s, err := parseSubnets(node.Spec.PodCIDRs)
	if err != nil {
		return lease.Lease{}, err
	}
	if err := (&plan{nodeName: node.Name, cluster4: p.cluster4, cluster6: p.cluster6}).checkSubnets(s); err != nil {
		return lease.Lease{}, err
	}
	l := lease.Lease{EnableIPv4: p.ipv4(), EnableIPv6: p.ipv6(), Attrs: lease.LeaseAttrs{BackendType: a[annotationBackendType]}}
	if p.ipv4() {
		addr, err := netip.ParseAddr(a[annotationPublicIP])
		if err != nil || !addr.Is4() {
			return lease.Lease{}, fmt.Errorf("annotation %s=%q is no IPv4 address", annotationPublicIP, a[annotationPublicIP])
		}
		l.Subnet = ip4Net(s.v4)
		l.Attrs.PublicIP = ip.FromIP(addr.AsSlice())
		l.Attrs.BackendData = json.RawMessage(a[annotationBackendData])
	}
	if p.ipv6() {
		addr, err := netip.ParseAddr(a[annotationPublicIPv6])
		if err != nil || !addr.Is6() {
			return lease.Lease{}, fmt.Errorf("annotation %s=%q is no IPv6 address", annotationPublicIPv6, a[annotationPublicIPv6])
		}
		l.IPv6Subnet = ip6Net(s.v6)
		l.Attrs.PublicIPv6 = ip.FromIP6(addr.AsSlice())
		l.Attrs.BackendV6Data = json.RawMessage(a[annotationBackendV6Data])
	}
	return l, nil
}

// ownLease is this node's lease.
func (p *plan) ownLease(s subnets, attrs *lease.LeaseAttrs) *lease.Lease {
	l := &lease.Lease{EnableIPv4: p.ipv4(), EnableIPv6: p.ipv6(), Attrs: *attrs}
	if p.ipv4() {
		l.Subnet = ip4Net(s.v4)
	}
	if p.ipv6() {
		l.IPv6Subnet = ip6Net(s.v6)
	}
	return l
}

// annotationsOf are the annotations that make attrs known on node.
func annotationsOf(node *corev1.Node, attrs *lease.LeaseAttrs) map[string]string {
	a := map[string]string{
		annotationManaged:     "true",
		annotationBackendType: attrs.BackendType,
	}
	if attrs.PublicIP != 0 {
		a[annotationPublicIP] = attrs.PublicIP.String()
		if overwrite := node.Annotations[annotationPublicIPOverwrite]; overwrite != "" {
			a[annotationPublicIP] = overwrite
		}
		a[annotationBackendData] = backendData(attrs.BackendData)
	}
	if attrs.PublicIPv6 != nil {
		a[annotationPublicIPv6] = attrs.PublicIPv6.String()
		if overwrite := node.Annotations[annotationPublicIPv6Overwrite]; overwrite != "" {
			a[annotationPublicIPv6] = overwrite
		}
		a[annotationBackendV6Data] = backendData(attrs.BackendV6Data)
	}
	return a
}

// backendData is what flannel's own manager writes for a backend without data (host-gw).
func backendData(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "null"
	}
	return string(raw)
}

// annotationsHold says whether node has all of want.
func annotationsHold(node *corev1.Node, want map[string]string) bool {
	for key, value := range want {
		if have, ok := node.Annotations[key]; !ok || have != value {
			return false
		}
	}
	return true
}

// vtepMAC reads the MAC address out of the vxlan backend's data; "" when there is none.
func vtepMAC(data string) string {
	var vtep struct{ VtepMAC string }
	if err := json.Unmarshal([]byte(data), &vtep); err != nil {
		return ""
	}
	if _, err := net.ParseMAC(vtep.VtepMAC); err != nil {
		return ""
	}
	return vtep.VtepMAC
}
