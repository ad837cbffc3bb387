// Package apitest holds the tests of what package components does to a Kubernetes API. They
// run against a real API server in their own process, and are apart from the other tests
// because it takes long to link.
package apitest
