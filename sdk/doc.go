// Package sdk is what a k3m component's author imports: describe the component in an
// Info, do its work in Run, hand it to Serve.
//
// plugin.go holds the interfaces that an author implements, info.go what a component
// says of itself, host.go what it is given while it runs. The wire contract is in
// proto/; client/ is the host's side of it; plugintest/ proves that a plugin keeps it.
package sdk
