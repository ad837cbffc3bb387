// Package client is the host's side of the component contract: what the k3m core, and
// the kits that stand in for it, use to talk to a plugin's process.
//
// client.go has the calls, connect.go the way from a go-plugin client to them,
// convert.go turns what a plugin says into the sdk's types. A plugin is not trusted:
// what it says is bounded, well-formed and printable before a caller sees it, and what
// is not is an error that says so.
package client
