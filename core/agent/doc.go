// Package agent makes a machine a node of the cluster: it joins through the supervisor of a
// server, and runs the kubelet and kube-proxy in this process, unpatched. A server's own
// agent is an agent like any other; it only happens to find its server on the loopback.
//
// The steps, each as early as what it needs allows:
//
//	supervisor answers ─ join (token, CA hash, node password) ─┐
//	runtime reports its endpoint ───────────────────────────────┴─ kubelet ─ Node object ─ kube-proxy
//	packet filter, resolv.conf, cgroup root: at once ───────────┘
//
// Where to go next: agent.go (the life of an agent), join.go (what is said to the supervisor),
// identity.go (keys, certificates, kubeconfigs on disk), component.go (identities of
// components), kubelet.go and kubeletconfig.go, proxy.go and packetfilter.go, nodewatch.go
// (events about our own Node object), csi.go
// (the order of kubelet and controller-manager in one process), cleanup.go (what `k3m uninstall` removes).
//
// What is on disk, all below <data-dir>/agent:
//
//	node-password                 0600, made once; keeps the node's name ours
//	tls/                          0700, certificates and keys, renewed at each start and when
//	                              a quarter of their life is left
//	kubelet.kubeconfig, kube-proxy.kubeconfig
//	components/<id>/              a component's own kubeconfig, for its uid alone
//	etc/resolv.conf               only where the host's own can't be used by pods
//	kubelet/                      the kubelet's root directory
//	kubelet-plugins/volume/exec/  flexvolume drivers
//	pod-logs/                     logs of pods, for a data directory that is not the default
//
// Outside of it: the logs of pods in /var/log/pods (default data directory), links to them in
// /var/log/containers, and the kubelet's sockets for device plugins, whose path is fixed.
//
// The kubelet ends the whole process (os.Exit) in a few places that no caller can catch: when
// its port is taken, when its directories can't be made, and when cAdvisor or its container
// manager can't start. What can be known before (the ports, the directories, kernel
// settings that can't be changed) is checked first and is an ordinary error.
package agent
