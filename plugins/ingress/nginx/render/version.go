package render

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Nginx is what an nginx executable can do.
type Nginx struct {
	Major, Minor, Patch int
	// Missing are the modules that this component uses and the executable lacks.
	Missing []string
	// without are modules that were left out when it was built.
	without map[string]bool
}

// OldestMajor and OldestMinor are the oldest nginx that works: what RHEL 8 and Debian 11
// have.
const (
	OldestMajor = 1
	OldestMinor = 18
)

// optional modules are compiled in only when asked for.
var optional = []string{
	"http_ssl_module", "http_v2_module", "http_realip_module", "http_auth_request_module", "http_stub_status_module",
}

// usual modules are there unless they were left out.
var usual = []string{
	"http_access_module", "http_auth_basic_module", "http_charset_module", "http_geo_module", "http_grpc_module",
	"http_gzip_module", "http_limit_conn_module", "http_limit_req_module", "http_map_module", "http_proxy_module",
	"http_rewrite_module", "http_split_clients_module", "http_upstream_hash_module", "http_upstream_keepalive_module",
	"http_upstream_zone_module", "http_fastcgi_module", "http_uwsgi_module", "http_scgi_module",
}

// foreign modules are not used; only their temporary folders have to be moved where they
// are there.
var foreign = map[string]bool{"http_fastcgi_module": true, "http_uwsgi_module": true, "http_scgi_module": true}

var versionLine = regexp.MustCompile(`(?m)^nginx version: \S+/(\d+)\.(\d+)\.(\d+)`)

// ParseVersion reads what `nginx -V` prints. Its error says that the executable is no
// nginx, or too old, or lacks a module that is always needed.
func ParseVersion(text string) (Nginx, error) {
	var n Nginx
	found := versionLine.FindStringSubmatch(text)
	if found == nil {
		return n, errors.New("this is not what nginx -V prints; is it nginx?")
	}
	for i, into := range []*int{&n.Major, &n.Minor, &n.Patch} {
		var err error
		if *into, err = strconv.Atoi(found[i+1]); err != nil {
			return n, fmt.Errorf("nginx's version %q: %w", found[0], err)
		}
	}
	if !n.AtLeast(OldestMajor, OldestMinor, 0) {
		return n, fmt.Errorf("nginx %d.%d.%d is too old, want %d.%d or later", n.Major, n.Minor, n.Patch, OldestMajor, OldestMinor)
	}
	n.without = map[string]bool{}
	args := strings.Fields(text)
	for _, arg := range args {
		if module, ok := strings.CutPrefix(arg, "--without-"); ok {
			n.without[module] = true
		}
	}
	for _, module := range optional {
		if !slices.Contains(args, "--with-"+module) {
			n.without[module] = true
		}
	}
	for _, module := range append(append([]string{}, optional...), usual...) {
		if n.without[module] && !foreign[module] {
			n.Missing = append(n.Missing, "ngx_"+module)
		}
	}
	if len(n.Missing) > 0 {
		return n, fmt.Errorf("this nginx was built without %s; install your distribution's package (Debian: nginx or nginx-light, "+
			"Alpine: nginx, RHEL: nginx-core)", strings.Join(n.Missing, ", "))
	}
	return n, nil
}

// AtLeast compares versions.
func (n Nginx) AtLeast(major, minor, patch int) bool {
	a, b := [3]int{n.Major, n.Minor, n.Patch}, [3]int{major, minor, patch}
	for i := range a {
		if a[i] != b[i] {
			return a[i] > b[i]
		}
	}
	return true
}
