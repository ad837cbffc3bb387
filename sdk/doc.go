// Package sdk is what a k3m component's author imports: describe the component in an
// Info, do its work in Run, hand it to Serve.
//
// plugin.go holds the interfaces that an author implements, info.go what a component
// says of itself, host.go and facts.go what it is given while it runs, config.go and
// schema.go how a configuration is read and checked. serve.go and command.go are a
// plugin's process, server.go the calls that it answers.
//
// The wire contract is in proto/; client/ is the host's side of it; plugintest/ proves
// that a plugin keeps it. docs/examples/addon.whoami, in k3m's repository, is a
// component to start from.
package sdk
