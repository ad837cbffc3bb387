package ingress

import (
	"fmt"
	"strings"

	"github.com/k3m-io/k3m/test/images/echo/answer"
)

func exactPath(s *scene, _ controller) {
	const host = "exact-path.example"
	s.ingresses(simple("exact-path", rule(host, "Exact", "/foo", "a"), rule(host, "Exact", "/slash/", "b"), rule(host, "Exact", "/sp ace", "c")))
	url := "http://" + host
	s.become(
		ask{url: url + "/foo", backend: "a"},
		ask{url: url + "/foo?with=a&query", backend: "a"},
		ask{url: url + "/foo/", status: 404},
		ask{url: url + "/foo/bar", status: 404},
		ask{url: url + "/foobar", status: 404},
		ask{url: url + "/FOO", status: 404},
		ask{url: url + "/bar", status: 404},
		ask{url: url + "/", status: 404},
		ask{url: url + "/slash/", backend: "b"},
		ask{url: url + "/slash", status: 404},
		ask{url: url + "/slash/x", status: 404},
		ask{url: url + "/sp%20ace", backend: "c"},
	)
}

// prefixPath goes through the table of the Ingress documentation: elements of a path, split by
// slashes, are compared, not letters.
func prefixPath(s *scene, _ controller) {
	const host = "prefix.example"
	s.ingresses(simple("prefix", rule(host, "Prefix", "/foo", "a"), rule(host, "Prefix", "/aaa/bbb", "b"), rule(host, "Prefix", "/slash/", "c")))
	url := "http://" + host
	s.become(
		ask{url: url + "/foo", backend: "a"},
		ask{url: url + "/foo?query", backend: "a"},
		ask{url: url + "/foo/", backend: "a"},
		ask{url: url + "/foo/bar", backend: "a"},
		ask{url: url + "/foobar", status: 404},
		ask{url: url + "/foo.bar", status: 404},
		ask{url: url + "/FOO/", status: 404},
		ask{url: url + "/aaa/bb", status: 404},
		ask{url: url + "/aaa/bbb", backend: "b"},
		ask{url: url + "/aaa/bbb/", backend: "b"},
		ask{url: url + "/aaa/bbb/ccc", backend: "b"},
		ask{url: url + "/aaa/bbbxyz", status: 404},
		ask{url: url + "/aaa/ccc", status: 404},
		// The trailing slash of a prefix says nothing.
		ask{url: url + "/slash", backend: "c"},
		ask{url: url + "/slash/", backend: "c"},
		ask{url: url + "/slash/x", backend: "c"},
		ask{url: url + "/slashes", status: 404},
	)
}

// pathPrecedence: the longest path first, and of two equal ones the exact one.
func pathPrecedence(s *scene, _ controller) {
	const host = "precedence.example"
	s.ingresses(simple("precedence", rule(host, "Prefix", "/", "a"), rule(host, "Prefix", "/foo", "b"), rule(host, "Exact", "/foo", "c"),
		rule(host, "Prefix", "/foo/bar", "d"), rule(host, "Exact", "/", "d"), rule(host, "Exact", "/foo/bar/baz", "a")))
	url := "http://" + host
	s.become(
		ask{url: url + "/", backend: "d"},
		ask{url: url + "/other", backend: "a"},
		ask{url: url + "/foo", backend: "c"},
		ask{url: url + "/foo/", backend: "b"},
		ask{url: url + "/foo/x", backend: "b"},
		ask{url: url + "/foo/bar", backend: "d"},
		ask{url: url + "/foo/bar/x", backend: "d"},
		ask{url: url + "/foo/bar/baz", backend: "a"},
		ask{url: url + "/foobar", backend: "a"},
	)
}

// specificPath may mean what the implementation likes; all take the path itself and what is
// below it.
func specificPath(s *scene, _ controller) {
	const host = "specific.example"
	s.ingresses(simple("specific", rule(host, "ImplementationSpecific", "/foo", "a"), rule(host, "Exact", "/foo/exact", "b")))
	url := "http://" + host
	s.become(
		ask{url: url + "/foo", backend: "a"},
		ask{url: url + "/foo/bar", backend: "a"},
		ask{url: url + "/foo/exact", backend: "b"},
		ask{url: url + "/bar", status: 404},
	)
}

// pathsOfTwo: what two Ingresses say of one host is put together.
func pathsOfTwo(s *scene, _ controller) {
	const host = "two.example"
	s.ingresses(simple("two-first", rule(host, "Prefix", "/", "a")) + "---\n" + simple("two-second", rule(host, "Prefix", "/second", "b"), rule(host, "Exact", "/third", "c")))
	url := "http://" + host
	unchanged := func(path string) func(answer.Answer) error {
		return func(got answer.Answer) error {
			if sent := got.Path + "?" + got.Query; strings.TrimSuffix(sent, "?") != path {
				return fmt.Errorf("the backend sees %s", sent)
			}
			return nil
		}
	}
	s.become(
		ask{url: url + "/first", backend: "a", also: unchanged("/first")},
		ask{url: url + "/second", backend: "b", also: unchanged("/second")},
		ask{url: url + "/second/deep%2Fslash/x?a=b&c=%20d", backend: "b", also: unchanged("/second/deep%2Fslash/x?a=b&c=%20d")},
		ask{url: url + "/third", backend: "c"},
		ask{url: url + "/third/x", backend: "a"},
	)
}
