// Package suite pins what the conformance tests are built from, so that the modules of Kubernetes' own
// end-to-end tests stay out of the root module. It holds no code of its own.
package suite
