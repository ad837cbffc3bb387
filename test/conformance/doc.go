// Command conformance runs the upstream end-to-end tests of Kubernetes, those of conformance among them, against
// dist/k3m in a test host of the node harness:
//
//	sudo make conformance                                   # the default focus
//	sudo make conformance FOCUS='\[sig-network\] DNS'       # a regular expression over the tests' full names
//
// What the tests need and no registry is asked for is built here and kept below dist/conformance: the test
// executable, ginkgo and agnhost from the module that ./suite pins, a small root of Debian's packages, and the
// images made of them (see images.go). left-out.md names the tests that are not run, each with its reason; this
// program reads it, so that what is said and what is done agree.
package main
