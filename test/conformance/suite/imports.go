//go:build tools

package suite

// A module file keeps the modules of a package's tests, of which the executable is built, only when the package is
// imported. No build has the tag.
import _ "k8s.io/kubernetes/test/e2e"
