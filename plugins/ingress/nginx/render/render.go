// Package render writes nginx's configuration. It is the one place that makes text of
// nginx's language; every value from outside becomes a token in quote.go first.
package render

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
)

// Env is where and how nginx runs. It is the controller's, and trusted.
type Env struct {
	// Dir is the absolute path of the folder that holds the files; the configuration names
	// them by it. Workers of an older configuration read its password files until they end.
	Dir string
	// RunDir is the absolute path of a folder that nginx may write: its pid file is
	// RunDir/nginx.pid, temporary files are below.
	RunDir string
	// HTTP and HTTPS are the listeners' addresses.
	HTTP, HTTPS []netip.AddrPort
	// HTTPPort and HTTPSPort are the ports by which clients reach the listeners, for
	// redirects and X-Forwarded-Port; 0 is 80 and 443.
	HTTPPort, HTTPSPort uint16
	// Status is a unix socket's path or an address on loopback, for /status (stub_status),
	// /healthz and /generation; empty for none.
	Status string
	// Generation is what /generation answers, to tell old workers from new ones: up to 64
	// letters and digits.
	Generation string
	// Resolver are the cluster's DNS servers. Without any, names that a Service or an
	// annotation gives are not found.
	Resolver []netip.AddrPort
	// AccessLog and ErrorLog are files, or "stderr" (error log), or "" for none.
	AccessLog, ErrorLog string
	// MaxFiles is the limit of open files that nginx may raise its own to; 0 leaves it.
	MaxFiles uint64
	// Nginx is what the executable can do; see ParseVersion.
	Nginx Nginx
	// Foreground says "daemon off".
	Foreground bool
}

// File is one file to be written before nginx is told. Path is relative to Env.Dir.
type File struct {
	Path string
	Data []byte
	// Secret files are for nginx's user alone (0600).
	Secret bool
}

// Output is a rendered configuration.
type Output struct {
	// Files are sorted by path; the configuration is Conf.
	Files []File
	// owners are the Ingresses by the line that their part begins at.
	owners []owner
}

// Conf is the path of the configuration among the files.
const Conf = "nginx.conf"

type owner struct {
	line    int
	ingress types.NamespacedName
}

// renderer is one rendering at work.
type renderer struct {
	cfg   *model.Config
	set   *settings.Settings
	env   Env
	vars  variables
	files map[string]File
	// bodies remember what policies write, which their locations share.
	bodies map[*model.Policy]*policyText
	byName map[string]*model.Upstream
	// counters are the names of cfg.Limits.
	counters map[string]bool
}

// Render writes cfg and the global settings; the same ones make the same bytes. Its only
// errors are Env's, and a default certificate that is missing.
func Render(cfg *model.Config, set *settings.Settings, env Env) (*Output, error) {
	if env.HTTPPort == 0 {
		env.HTTPPort = 80
	}
	if env.HTTPSPort == 0 {
		env.HTTPSPort = 443
	}
	r := &renderer{cfg: cfg, set: set, env: env, vars: variables{}, files: map[string]File{}, bodies: map[*model.Policy]*policyText{},
		byName: make(map[string]*model.Upstream, len(cfg.Upstreams)), counters: make(map[string]bool, len(cfg.Limits))}
	for _, limit := range cfg.Limits {
		r.counters[limit.Name] = true
	}
	for _, up := range cfg.Upstreams {
		r.byName[up.Name] = up
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	servers := &writer{depth: 1}
	for i, s := range cfg.Servers {
		r.server(servers, s, i == 0)
	}
	servers.own(types.NamespacedName{})
	// These define variables, which are written before them.
	limits, upstreams := &writer{depth: 1}, &writer{depth: 1}
	r.limits(limits)
	r.upstreams(upstreams)
	w := &writer{}
	r.main(w)
	w.open("http")
	r.http(w)
	r.vars.write(w)
	w.add(limits)
	w.add(upstreams)
	r.status(w)
	w.add(servers)
	w.close()
	r.files[Conf] = File{Path: Conf, Data: w.buf.Bytes()}
	out := &Output{owners: w.owners}
	for _, file := range r.files {
		out.Files = append(out.Files, file)
	}
	slices.SortFunc(out.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

var (
	safePath   = regexp.MustCompile(`^/[\pL\pN/._+@,=~ -]*$`)
	generation = regexp.MustCompile(`^[A-Za-z0-9]{0,64}$`)
)

// check refuses an environment that can't be written.
func (r *renderer) check() error {
	for what, path := range map[string]string{"Dir": r.env.Dir, "RunDir": r.env.RunDir} {
		if !safePath.MatchString(path) {
			return fmt.Errorf("render: %s %q is not an absolute path of letters, digits, spaces and ._+@,=~-", what, path)
		}
	}
	for what, path := range map[string]string{"AccessLog": r.env.AccessLog, "ErrorLog": r.env.ErrorLog, "Status": r.env.Status} {
		if _, err := netip.ParseAddrPort(path); err == nil && what == "Status" {
			continue
		}
		if path != "" && path != "stderr" && !safePath.MatchString(path) {
			return fmt.Errorf("render: %s %q is not an absolute path of letters, digits, spaces and ._+@,=~-", what, path)
		}
	}
	switch {
	case !generation.MatchString(r.env.Generation):
		return fmt.Errorf("render: the generation %q is not up to 64 letters and digits", r.env.Generation)
	case len(r.cfg.Servers) == 0:
		return errors.New("render: no server, want the default one at least")
	case len(r.env.HTTPS) > 0 && r.cfg.Certificate == nil:
		return errors.New("render: no default certificate for HTTPS")
	}
	return nil
}

// Owner is the Ingress that made a line of the configuration, as nginx's "in
// …/nginx.conf:LINE" counts; ok is false for a line that is nobody's.
func (o *Output) Owner(line int) (ingress types.NamespacedName, ok bool) {
	at := sort.Search(len(o.owners), func(i int) bool { return o.owners[i].line > line }) - 1
	if at < 0 {
		return types.NamespacedName{}, false
	}
	found := o.owners[at].ingress
	return found, found != types.NamespacedName{}
}
