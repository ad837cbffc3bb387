package suite

// The executable of the tests is built of this package's own tests, which a module file keeps in mind only when
// something of it is imported.
import _ "k8s.io/kubernetes/test/e2e"
