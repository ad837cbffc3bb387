package nginx

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
	"github.com/k3m-io/k3m/sdk"
)

// config is the component's block of the configuration file.
type config struct {
	// HTTPPort and HTTPSPort are the ports of the Service; 0 is 80 and 443, as far as they
	// are free for this component.
	HTTPPort  uint16 `json:"httpPort"`
	HTTPSPort uint16 `json:"httpsPort"`
	// HostPorts binds the same ports of the node's own addresses, too.
	HostPorts bool `json:"hostPorts"`
	// Executable is nginx's path; empty looks for it.
	Executable string `json:"executable"`
	// DefaultCertificate is a TLS secret, "namespace/name"; empty makes a certificate that
	// nobody signed.
	DefaultCertificate string `json:"defaultCertificate"`
	// DefaultBackend is "namespace/name:port"; empty answers 404.
	DefaultBackend string `json:"defaultBackend"`
	// ConfigMap is "namespace/name".
	ConfigMap string `json:"configMap"`
	// Settings are values of ingress-nginx's ConfigMap, by its names; those of the
	// ConfigMap win.
	Settings map[string]string `json:"settings"`
	// AllowSnippets heeds the annotations and settings that hold nginx's language.
	AllowSnippets bool `json:"allowSnippets"`
	// AccessLog writes a line for each request to the component's log.
	AccessLog bool `json:"accessLog"`
}

// defaultConfigMap has the name that ingress-nginx's chart gives to its own.
const defaultConfigMap = "kube-system/ingress-nginx-controller"

// configSchema is the JSON Schema of config, for `k3m component info` and editors.
const configSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "properties": {
    "httpPort": {
      "description": "port for HTTP of the Service; by default 80, if this is the first ingress chosen",
      "type": "integer", "minimum": 1, "maximum": 65535
    },
    "httpsPort": {
      "description": "port for HTTPS of the Service; by default 443, if this is the first ingress chosen",
      "type": "integer", "minimum": 1, "maximum": 65535
    },
    "hostPorts": {
      "description": "bind the ports on the node's own addresses, too: for nodes without a load balancer",
      "type": "boolean", "default": false
    },
    "executable": {
      "description": "absolute path of the nginx executable; by default it is looked for where packages put it",
      "type": "string", "minLength": 2, "maxLength": 255
    },
    "defaultCertificate": {
      "description": "TLS secret, NAMESPACE/NAME, for hosts that have no certificate; by default one that nobody signed",
      "type": "string", "minLength": 3, "maxLength": 320
    },
    "defaultBackend": {
      "description": "Service, NAMESPACE/NAME:PORT, that answers what no Ingress takes; by default that is 404",
      "type": "string", "minLength": 5, "maxLength": 330
    },
    "configMap": {
      "description": "ConfigMap, NAMESPACE/NAME, with settings by the names of ingress-nginx",
      "type": "string", "minLength": 3, "maxLength": 320, "default": "kube-system/ingress-nginx-controller"
    },
    "settings": {
      "description": "settings by the names of ingress-nginx, as in its ConfigMap, which wins where it has the same",
      "type": "object", "additionalProperties": {"type": "string", "maxLength": 65536}
    },
    "allowSnippets": {
      "description": "heed snippets of nginx's language: who may write an Ingress may then read every TLS key",
      "type": "boolean", "default": false
    },
    "accessLog": {
      "description": "write a line for each request to the component's log",
      "type": "boolean", "default": false
    }
  }
}`

// ValidateConfig implements sdk.ConfigValidator. It names every mistake, not only the
// first.
func (*plugin) ValidateConfig(_ context.Context, raw json.RawMessage) []sdk.ConfigProblem {
	_, problems := parseConfig(raw)
	return problems
}

// parseConfig reads the block; an empty one means all defaults. The returned config is
// only of use when there are no problems.
func parseConfig(raw json.RawMessage) (config, []sdk.ConfigProblem) {
	cfg := config{ConfigMap: defaultConfigMap}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 {
		return cfg, nil
	}
	if problems := sdk.CheckConfig(json.RawMessage(configSchema), raw); len(problems) > 0 {
		return cfg, problems
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return cfg, []sdk.ConfigProblem{{Message: err.Error()}}
	}
	var problems []sdk.ConfigProblem
	problem := func(path, format string, args ...any) {
		problems = append(problems, sdk.ConfigProblem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if cfg.HTTPPort != 0 && cfg.HTTPPort == cfg.HTTPSPort {
		problem("httpsPort", "%d is httpPort, too; choose another", cfg.HTTPSPort)
	}
	if e := cfg.Executable; e != "" && (!filepath.IsAbs(e) || filepath.Clean(e) != e) {
		problem("executable", "%q is no absolute path; give one like /usr/sbin/nginx", e)
	}
	for path, value := range map[string]string{"defaultCertificate": cfg.DefaultCertificate, "configMap": cfg.ConfigMap} {
		if _, err := parseName(value); value != "" && err != nil {
			problem(path, "%v", err)
		}
	}
	if _, err := cfg.defaultBackend(); err != nil {
		problem("defaultBackend", "%v", err)
	}
	_, wrong := settings.Parse(cfg.AllowSnippets, cfg.Settings)
	for _, w := range wrong {
		problem("settings."+w.Key, "%s", w.Message)
	}
	slices.SortStableFunc(problems, func(a, b sdk.ConfigProblem) int { return strings.Compare(a.Path, b.Path) })
	return cfg, problems
}

// Names of the API: a namespace is a DNS label, the others may have dots.
var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$`)
	portName  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$`)
)

// parseName reads "namespace/name".
func parseName(text string) (types.NamespacedName, error) {
	namespace, name, found := strings.Cut(text, "/")
	if !found || !label.MatchString(namespace) || !subdomain.MatchString(name) {
		return types.NamespacedName{}, fmt.Errorf("%.80q is not NAMESPACE/NAME", text)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// defaultBackend reads DefaultBackend; nil for none.
func (c config) defaultBackend() (*translate.ServiceRef, error) {
	if c.DefaultBackend == "" {
		return nil, nil
	}
	text, port, found := strings.Cut(c.DefaultBackend, ":")
	name, err := parseName(text)
	number, numeric := strconv.ParseUint(port, 10, 16)
	if !found || err != nil || !portName.MatchString(port) || numeric == nil && number == 0 {
		return nil, fmt.Errorf("%.80q is not NAMESPACE/NAME:PORT, with the port's name or number", c.DefaultBackend)
	}
	return &translate.ServiceRef{NamespacedName: name, Port: port}, nil
}

// problemText is all problems in one line.
func problemText(problems []sdk.ConfigProblem) string {
	var texts []string
	for _, problem := range problems {
		texts = append(texts, strings.TrimPrefix(problem.Path+": "+problem.Message, ": "))
	}
	return strings.Join(texts, "; ")
}
