// Package flannel is the component cni.flannel: the pod network, made by flannel's own
// packages inside a plugin process.
//
// plugin.go says who the component is; config.go is what a user may configure; plan.go
// joins that with the facts; network.go is the work, from the first step to the last.
// The parts that it puts together: leases.go (who owns which subnet, from the Node objects), claims.go (who
// of several that say they do), uplink.go (the interface between nodes), bridge.go (cni0), filter.go (masquerading, through
// flannel's traffic managers), conflist.go and executables.go (what the runtime reads),
// sysctl.go, localnet.go (what keeps pods off the host's loopback), watch.go (what makes Run give up and be started again), state.go (what a run leaves to
// the next one), cleanup.go.
//
// Nothing here forwards a packet: bridge, routes, neighbours and rules are the kernel's.
// They stay when the process ends, however it ends, and the next one adopts them.
//
// The CNI executables that go along with it are built from the module in carried/.
package flannel
