package hostcheck

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// distributions are others that make nodes, what they leave, what runs when they run, and how to
// be rid of them.
var distributions = []struct {
	name      string
	paths     []string
	processes []string
	fix       string
}{
	{"k3s", []string{"var/lib/rancher/k3s", "etc/systemd/system/k3s.service", "etc/systemd/system/k3s-agent.service"}, []string{"k3s-server", "k3s-agent", "k3s"}, "k3s-uninstall.sh (or k3s-agent-uninstall.sh)"},
	{"RKE2", []string{"var/lib/rancher/rke2", "etc/rancher/rke2"}, []string{"rke2"}, "rke2-uninstall.sh"},
	{"kubeadm", []string{"etc/kubernetes/manifests", "etc/kubernetes/kubelet.conf", "var/lib/etcd/member"}, []string{"kubelet", "kube-apiserver"}, "kubeadm reset, then remove /etc/cni/net.d and stop the kubelet's service"},
	{"k0s", []string{"var/lib/k0s", "etc/k0s"}, []string{"k0s"}, "k0s stop && k0s reset"},
	{"MicroK8s", []string{"var/snap/microk8s"}, []string{"kubelite"}, "snap remove --purge microk8s"},
	{"minikube", []string{"var/lib/minikube"}, nil, "minikube delete"},
}

// networks are interfaces of other pod networks, by the beginnings of their names.
var networks = map[string]string{
	"cali": "Calico", "tunl0": "Calico", "vxlan.calico": "Calico", "cilium_": "Cilium", "lxc_health": "Cilium",
	"weave": "Weave Net", "kube-bridge": "kube-router", "kube-ipvs0": "kube-proxy in its ipvs mode", "nodelocaldns": "NodeLocal DNSCache",
	"cni0": "another cluster's pods", "flannel.": "another cluster's flannel",
}

func checkLeftovers(_ context.Context, o *Options) []Finding {
	var found []Finding
	for _, d := range distributions {
		if running := o.processes(d.processes...); len(running) > 0 {
			found = append(found, failure(fmt.Sprintf("%s runs here: %s. Two nodes on one machine take each other's ports and rules", d.name, list(running)), "stop it, and remove it: "+d.fix))
			continue
		}
		var left []string
		for _, path := range d.paths {
			if o.exists(path) {
				left = append(left, "/"+path)
			}
		}
		if len(left) > 0 {
			found = append(found, warning(fmt.Sprintf("%s was here and left %s", d.name, list(left)), d.fix))
		}
	}
	found = append(found, o.foreignLinks()...)
	if files, err := os.ReadDir(o.path("etc", "cni", "net.d")); err == nil && len(files) > 0 {
		found = append(found, warning("/etc/cni/net.d holds the network configuration of another cluster or runtime; k3m has its own folder and does not read it", "remove it if nothing else uses it"))
	}
	return orOK(found, "no traces of another Kubernetes")
}

// foreignLinks are interfaces of other pod networks. Those with the names of k3m's own count
// as long as no node has been here.
func (o *Options) foreignLinks() []Finding {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	byNetwork := map[string][]string{}
	for _, i := range interfaces {
		for prefix, network := range networks {
			if !strings.HasPrefix(i.Name, prefix) || o.Used && ownInterface(i.Name) {
				continue
			}
			byNetwork[network] = append(byNetwork[network], i.Name)
		}
	}
	var found []Finding
	for network, names := range byNetwork {
		slices.Sort(names)
		found = append(found, warning(fmt.Sprintf("there are interfaces of %s: %s", network, list(names)),
			"if nothing uses them any more: ip link delete "+names[0]+" and so on; a reboot removes them too"))
	}
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.Found, b.Found) })
	return found
}
