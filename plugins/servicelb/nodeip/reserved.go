package nodeip

import "maps"

// fixedPorts are those that a node of a cluster needs, whether somebody listens on them
// at the moment or not: a Service on them would cut the node off. What else listens on a
// node's address, the node tells (see node.holders).
var fixedPorts = map[port]string{
	{22, "TCP"}:    "SSH",
	{2379, "TCP"}:  "etcd",
	{2380, "TCP"}:  "etcd",
	{2381, "TCP"}:  "etcd",
	{6443, "TCP"}:  "the Kubernetes API",
	{10249, "TCP"}: "kube-proxy",
	{10250, "TCP"}: "the kubelet",
	{10256, "TCP"}: "kube-proxy",
	{10257, "TCP"}: "the controller-manager",
	{10259, "TCP"}: "the scheduler",
	{8472, "UDP"}:  "the pod network",
}

// reservedPorts are the fixed ones and the operator's.
func reservedPorts(cfg config) map[port]string {
	all := maps.Clone(fixedPorts)
	for _, p := range cfg.reserved {
		if _, fixed := all[p]; !fixed {
			all[p] = "reservedPorts"
		}
	}
	return all
}
