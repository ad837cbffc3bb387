package ingress

import (
	"slices"
	"strings"
)

// controller is what the tests must know of an ingress controller.
type controller struct {
	// name is the component's, below the kind ingress, and that of its IngressClass.
	name string
	// service is its Service in kube-system.
	service string
	// config is its block of the configuration file, beside the defaults: lines of YAML.
	config []string
	// serving is how the process that serves begins its command line, where that is not the
	// plugin itself; child is in that of every process that it starts.
	serving, child string
	// crds is the API group of the CustomResourceDefinitions that it brings along.
	crds string
	// ports are those that it listens on at the pod gateway.
	ports [2]int
	// grpc is the annotation of a Service or an Ingress that says that a backend speaks gRPC.
	grpc annotation
}

// annotation is one of an Ingress, or of the Service if onService.
type annotation struct {
	onService  bool
	key, value string
}

// controllers are those that must pass.
var controllers = []controller{
	{
		name: "traefik", service: "traefik", crds: "traefik.io", ports: [2]int{8000, 8443},
		config: []string{"allowExternalNameServices: true"},
		grpc:   annotation{onService: true, key: "traefik.ingress.kubernetes.io/service.serversscheme", value: "h2c"},
	},
	{
		name: "nginx", service: "ingress-nginx-controller", serving: "nginx: master", child: "nginx: ", ports: [2]int{8081, 8444},
		config: []string{`settings: {disable-svc-external-name: "false"}`},
		grpc:   annotation{key: "nginx.ingress.kubernetes.io/backend-protocol", value: "GRPC"},
	},
}

func (c controller) id() string { return "ingress." + c.name }

// block is its block of the configuration file, with further lines.
func (c controller) block(more ...string) string {
	lines := append(slices.Clone(c.config), more...)
	if len(lines) == 0 {
		return ""
	}
	return "  " + c.id() + ":\n    " + strings.Join(lines, "\n    ") + "\n"
}

// file is a configuration file that enables controllers, with their blocks.
func file(enabled []controller, blocks ...string) string {
	text := "enable: ["
	for _, c := range enabled {
		text += "ingress=" + c.name + ", "
	}
	text = strings.TrimSuffix(text, ", ") + "]\n"
	if len(enabled) == 0 {
		text = "disable: [ingress]\n"
	}
	if all := strings.Join(blocks, ""); all != "" {
		text += "components:\n" + all
	}
	return text
}
