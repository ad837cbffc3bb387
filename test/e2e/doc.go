// Package e2e holds the end-to-end tests: they run the real dist/k3m in test hosts
// (package harness) with real pods (package images). Run them with `make e2e`, or one of
// them with
//
//	go test ./test/e2e -run TestDeployment -v
//
// All tests that can share one cluster do; each has a namespace of its own. Tests that
// hurt the cluster run one after another before the others, which run side by side.
// K3M_ARTIFACTS names a folder in which the logs of failed runs are kept.
package e2e
