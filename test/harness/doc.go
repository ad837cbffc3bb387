// Package harness makes test hosts on one machine and runs the real dist/k3m in them.
//
// A Lab is what one test process owns: a temporary directory, a switch, the hosts, and a
// keeper process. A Host is what a fresh machine would be: its own PID, mount, UTS and
// network namespace, joined to the switch by a veth; /run and /proc are its own, and what
// is written to /etc, /opt, /var and /root lands in a layer of its own, so that the
// development machine stays as it is and a test can see what was left there. A Node is
// k3m running in a Host.
//
//	test process ──┬─ keeper                    cleans up when the test process is gone
//	               ├─ host n1 (pid 1 of its own) ── veth ──┐
//	               │    └─ k3m, plugins, shims, pods      switch (bridge, 198.18.0.1/24)
//	               └─ host n2 …                 ── veth ──┘
//
// The switch has no route to anywhere: what a node sends to its default gateway for an
// address outside is dropped there. Addresses are from 198.18.0.0/15, which RFC 2544
// keeps for benchmarks.
//
// Nothing outlives the test process, `kill -9` included: each host's first process holds
// the reading end of a pipe whose writing end only the test process has, and ends with
// it; the kernel then kills all of the PID namespace, and mounts, interfaces and rules go
// with their namespaces. What namespaces don't hold (cgroups, files) the keeper removes,
// which waits at a pipe of the same sort.
//
// A host that ran k3m is closed by `k3m uninstall --yes` and a comparison with what was
// there before (see Leftovers), so every test is also a test of what k3m leaves behind.
package harness
