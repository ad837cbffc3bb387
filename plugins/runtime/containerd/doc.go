// Package containerd is the component runtime.containerd: containerd v2 inside the
// plugin's process, serving the container runtime interface (CRI) to the kubelet.
//
// plugin.go is the component; engine.go starts and stops containerd; settings.go is its
// configuration, made of a layout (layout.go: where everything of one node lives) and of
// what the host can do (hostcheck.go), by way of the operator's template (template.go).
// registryfile.go takes registries.yaml up, which package pull puts into force. store.go
// imports image archives, which package archive reads; feed.go decides which file is
// imported when, with watch.go (inotify) and ledger.go (what was imported already).
// troubles.go tells the operator what to mend. commands.go serves `k3m ctr`, `k3m crictl` and `k3m image`; cleanup.go takes
// a node's containers off the host, orphans.go those that nobody knows. pause/ is the sandbox image, carried/ pins runc and
// crictl in a module of their own.
//
// Pods outlive this process: they are children of their shims, which live in a cgroup
// of their own and are found again at the next start.
package containerd
