// Package images builds the container images of the end-to-end tests from static
// executables: Debian's busybox with its links, and the program in ./echo. They are
// written as archives that go to a node's <data-dir>/agent/images/, one in the docker
// form and one in the OCI form, so that both ways in are used.
package images
