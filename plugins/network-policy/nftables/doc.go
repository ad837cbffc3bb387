// Package nftables is the component network-policy.nftables: the NetworkPolicy API, in the
// kernel's nftables, for the pods of one node.
//
// plugin.go says who the component is and what Run, Cleanup and the metrics are; config.go
// is what a user may configure. loop.go is the work: events go in, transactions come out.
//
//	api.go        what is watched, cut down to what counts
//	addresses.go  which pod addresses the CNI has handed out (host-local's records)
//	model.go      pods, namespaces, policies and components as the engine sees them
//	engine.go     who is selected by what; engine_sets.go, engine_chains.go: sets and chains
//	              with their reference counts; starting.go: pods whose address nobody knows yet
//	compile.go    a policy's rules as text of nft; ranges.go: its ports and address blocks
//	program.go    what changed, as one transaction of nft; watch.go: someone emptied the ruleset
//	frames.go     the one rule for the bridge, against packets that program.go's rules would not see
//
// The shape of the rules, and why they are so, is in docs/adr/0007. In short: a map from the
// addresses of this node's pods to a chain for each direction; the chain jumps to one chain
// for each policy that selects the pod and ends in drop; peers are sets. Chains are named by
// their content, never change, and are shared by all that want the same. So what comes and
// goes are elements, mostly.
//
// Nothing here sees a packet: the rules stay when the process ends, however it ends, and the
// next one replaces them in one transaction, without a gap.
package nftables
