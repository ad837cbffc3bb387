// Package render writes nginx's configuration. It is the one place that makes text of
// nginx's language; every value from outside goes through quote or a printer of numbers.
package render

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
)

// Env is where and how nginx runs. It is the controller's, and trusted.
type Env struct {
	// Dir is the absolute path of the folder that holds the files; the configuration names
	// them by it. It has no spaces.
	Dir string
	// RunDir is the absolute path of a folder that nginx may write: its pid file is
	// RunDir/nginx.pid, temporary files are below.
	RunDir string
	// HTTP and HTTPS are the listeners' addresses.
	HTTP, HTTPS []netip.AddrPort
	// HTTPSPort is the port by which clients reach HTTPS, for redirects.
	HTTPSPort uint16
	// Status is a unix socket's path or an address on loopback, for stub_status (/status),
	// /healthz and /generation.
	Status string
	// Generation is what /generation answers, to tell old workers from new ones: up to 64
	// letters and digits.
	Generation string
	// Resolver are the cluster's DNS servers.
	Resolver []netip.AddrPort
	// AccessLog and ErrorLog are files, or "stderr" (error log), or "" for none.
	AccessLog, ErrorLog string
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

// Render writes cfg and the global settings. Its only errors are Env's, and those of an
// executable that lacks what is always needed.
func Render(cfg *model.Config, set *settings.Settings, env Env) (*Output, error) {
	return nil, nil
}

// Owner is the Ingress that made a line of the configuration, as nginx's "in
// …/nginx.conf:LINE" counts; ok is false for a line that is nobody's.
func (o *Output) Owner(line int) (ingress types.NamespacedName, ok bool) {
	return types.NamespacedName{}, false
}
