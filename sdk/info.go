package sdk

import "encoding/json"

// Scope says on which nodes a component runs.
type Scope string

const (
	// NodeScope components run on every node, servers included.
	NodeScope Scope = "node"
	// ServerScope components run on every server node.
	ServerScope Scope = "server"
)

// Requirement names what must be there before a component is started: RequiresAPI,
// RequiresNode, or a kind ("runtime", "cni", …), met when its component is ready.
type Requirement string

const (
	// RequiresAPI is met when the Kubernetes API answers and the component's identity
	// exists; a component that has API rules must require it.
	RequiresAPI Requirement = "api"
	// RequiresNode is met when this node's Node object exists.
	RequiresNode Requirement = "node"
)

// Info is all that a host knows of a component before it runs. The host writes it down
// when a plugin is installed (built-in: when the distribution is built), and refuses to
// launch a plugin that says anything else later. The JSON form is the one in
// plugins.lock.
type Info struct {
	// Kind is the role that the component fills: "runtime", "cni", "dns", "addon", ….
	Kind string `json:"kind"`
	// Name names the implementation. Kind and Name together are the component's ID,
	// "cni.flannel". Both match [a-z][a-z0-9-]{0,30}.
	Name string `json:"name"`
	// Version is the component's own version, for people.
	Version string `json:"version"`
	// Summary is one line, for `k3m component list`.
	Summary string `json:"summary"`
	// Scope says where it runs.
	Scope Scope `json:"scope"`
	// Requires orders the start.
	Requires []Requirement `json:"requires,omitempty"`
	// Rules are the Kubernetes API rights of the component's own identity; all others
	// are refused by the API.
	Rules []Rule `json:"rules,omitempty"`
	// Privileges are what the process may do on the host.
	Privileges Privileges `json:"privileges"`
	// Limits bound the component's cgroup.
	Limits Limits `json:"limits"`
	// Images are references that the component wants to run as pods; most want none.
	Images []string `json:"images,omitempty"`
	// ConfigSchema is a JSON Schema of the configuration block; nil when it takes none.
	ConfigSchema json.RawMessage `json:"configSchema,omitempty"`
	// Commands are the k3m sub-commands that the plugin serves (see Commander).
	Commands []Command `json:"commands,omitempty"`
	// Services are the Kubernetes Services, "<namespace>/<name>", whose endpoints the
	// component may be: Host.Serve takes no other.
	Services []string `json:"services,omitempty"`
	// ServingCertificate asks for a TLS certificate for the names of Services, signed by
	// the cluster's server CA (see Host.ServingCertificate).
	ServingCertificate bool `json:"servingCertificate,omitempty"`
	// Labels are those that a NetworkPolicy sees the component with, as if it were a pod
	// of kube-system: "k8s-app": "kube-dns".
	Labels map[string]string `json:"labels,omitempty"`
	// Objects are Kubernetes objects, as JSON, that a server keeps applied as long as the
	// component is selected, and removes when it is not: Services without a selector,
	// classes, an APIService. In their strings $(CLUSTER_DNS), $(CLUSTER_DOMAIN) and
	// $(SERVER_CA) (PEM in base64) stand for the cluster's, but not in names. An APIService
	// of one of Services waits until that is served for the first time. Allowed are
	// Service, ConfigMap, Namespace, StorageClass, CSIDriver, IngressClass, GatewayClass,
	// PriorityClass, RuntimeClass, APIService, CustomResourceDefinition and the kinds that
	// these definitions define: no pods, no credentials, no rights.
	Objects []json.RawMessage `json:"objects,omitempty"`
	// Declares names objects that the component makes up while it runs, by its
	// configuration say, and hands to Host.Own. What Objects may hold, they may be.
	Declares []ObjectRef `json:"declares,omitempty"`

	// Abilities are the optional abilities. The SDK fills them in; an author leaves
	// them empty.
	Abilities []string `json:"abilities,omitempty"`
	// APIMinor is the contract's additive version. The SDK fills it in.
	APIMinor uint32 `json:"apiMinor"`
}

// ID is "<kind>.<name>".
func (i Info) ID() string { return i.Kind + "." + i.Name }

// ObjectRef names a Kubernetes object. Namespace is empty for an object of the cluster.
type ObjectRef struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

// Rule is a Kubernetes RBAC rule, with the meaning of rbac/v1's PolicyRule.
type Rule struct {
	Verbs           []string `json:"verbs"`
	APIGroups       []string `json:"apiGroups,omitempty"`
	Resources       []string `json:"resources,omitempty"`
	ResourceNames   []string `json:"resourceNames,omitempty"`
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
}

// Privileges are what a plugin's process may do on the host. The zero value is a user
// id of its own without any capability.
type Privileges struct {
	// Root asks for user id 0. Its capabilities are still only those listed.
	Root bool `json:"root,omitempty"`
	// Capabilities are kernel names, "CAP_NET_ADMIN". A kind "runtime" component keeps
	// all that the core has, since pods are its children.
	Capabilities []string `json:"capabilities,omitempty"`
}

// Limits bound a component's cgroup. Zero means no limit.
type Limits struct {
	// MemoryBytes is the most memory, page cache included.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// CPUMilli is in thousandths of a core.
	CPUMilli int64 `json:"cpuMilli,omitempty"`
}

// Command is a k3m sub-command.
type Command struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
}
