// Command bench measures dist/k3m in test hosts and prints JSON: how long a boot on an
// empty data directory takes until the API, the node, all components and the first pod are
// ready, what unpacking costs, how large the file is, what an idle node uses, how soon
// a component that was killed is back, how many names a second the node's DNS answers, and
// what the ingress controllers carry, hold and how soon they follow.
//
//	sudo make bench           # all, some twenty minutes
//	go run ./test/bench -runs 3 -idle 10s -recoveries 1 -queries 0 -traffic 0 -ingresses 0    # a short form
//	go run ./test/bench -runs 0 -idle 0 -recoveries 0 -queries 0                              # the ingresses alone
//
// Times are on the monotonic clock from the start of the process to the moment when a
// client in the host learns of the event: from a watch, or for the API, which can't be
// watched before it is there, from asking each 5 ms.
package main
