// Package kit is what the components of kind ingress have in common: the Service and the
// IngressClass by which they are reached (Objects), what became of that Service (Published),
// which claims of Ingresses lose, and what is wrong with their secrets and backends
// (Auditor), Events about it (Recorder), and the addresses in an Ingress's status
// (StatusWriter).
//
// It is a module of its own, since Traefik's dependencies clash with the core's: it compiles
// with client-go v0.32 as well as with the version of the root module, and needs no generated
// clientset, which would cost each start the registration of some thousand types.
package kit
