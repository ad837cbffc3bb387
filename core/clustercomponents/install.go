package clustercomponents

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	admission "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	rbac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/core/objects"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

//go:embed crds/*.yaml
var definitions embed.FS

var (
	nodeResource      = schema.GroupVersionResource{Group: nodestatus.Group, Version: nodestatus.Version, Resource: nodestatus.NodeComponentsResource}
	componentResource = schema.GroupVersionResource{Group: nodestatus.Group, Version: nodestatus.Version, Resource: nodestatus.ComponentResource}
)

const (
	managedBy    = "app.kubernetes.io/managed-by"
	fieldManager = "k3m"
	// nodeRule names the right of nodes to write NodeComponents, and the fence around it.
	nodeRule = "k3m:node-status"
	// nodePolicy is the fence's name as an object of admission, which may have no colon.
	nodePolicy = "k3m-node-status"
	// rangePolicy names the fence around the ranges of pod addresses.
	rangePolicy = "k3m-node-pod-ranges"
)

// apply is how objects are written: what k3m owns is k3m's, whoever changed it.
var apply = metav1.ApplyOptions{FieldManager: fieldManager, Force: true}

// install puts the definitions of the two kinds in place and lets each node write its own
// NodeComponents. It returns when the API serves both kinds.
func install(ctx context.Context, client kubernetes.Interface, objects dynamic.Interface) error {
	files, err := fs.Glob(definitions, "crds/*.yaml")
	if err != nil {
		return err
	}
	steps, ctx := errgroup.WithContext(ctx)
	for _, file := range files {
		steps.Go(func() error { return installDefinition(ctx, objects, file) })
	}
	steps.Go(func() error {
		if err := letNodesWrite(ctx, client); err != nil {
			return fmt.Errorf("let nodes tell of their components: %w", err)
		}
		return nil
	})
	if err := steps.Wait(); err != nil {
		return fmt.Errorf("install the kinds of objects that show components: %w", err)
	}
	return nil
}

func installDefinition(ctx context.Context, client dynamic.Interface, file string) error {
	text, err := definitions.ReadFile(file)
	if err != nil {
		return err
	}
	definition := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, &definition.Object); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return objects.Install(ctx, client, definition, fieldManager)
}

// fence keeps the nodes' own identities from writes that RBAC and NodeRestriction let through.
type fence struct {
	name, group, resource string
	operations            []admissionv1.OperationType
	condition, message    string // of CEL, and what is said when it is not met
}

var fences = []fence{
	{
		name: nodePolicy, group: nodestatus.Group, resource: nodestatus.NodeComponentsResource,
		operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update, admissionv1.Delete},
		condition:  "request.userInfo.username == 'system:node:' + request.name",
		message:    "a node may write the NodeComponents object of its own name alone",
	}, {
		// The controller-manager hands the ranges out. A node that brought one, or filled it in
		// first, would have the addresses of another's pods.
		name: rangePolicy, resource: "nodes",
		operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
		condition: "oldObject == null ? !has(object.spec.podCIDR) && !has(object.spec.podCIDRs) : " +
			"object.?spec.?podCIDR == oldObject.?spec.?podCIDR && object.?spec.?podCIDRs == oldObject.?spec.?podCIDRs",
		message: "a node may not choose the range of its pods' addresses",
	},
}

func (f fence) apply(ctx context.Context, client kubernetes.Interface, labels map[string]string) error {
	policy := admission.ValidatingAdmissionPolicy(f.name).WithLabels(labels).WithSpec(
		admission.ValidatingAdmissionPolicySpec().
			WithFailurePolicy(admissionv1.Fail).
			WithMatchConstraints(admission.MatchResources().WithResourceRules(admission.NamedRuleWithOperations().
				WithAPIGroups(f.group).WithAPIVersions("*").WithResources(f.resource).WithOperations(f.operations...))).
			WithMatchConditions(admission.MatchCondition().WithName("nodes").
				WithExpression("'system:nodes' in request.userInfo.groups")).
			WithValidations(admission.Validation().WithMessage(f.message).WithExpression(f.condition)))
	if _, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Apply(ctx, policy, apply); err != nil {
		return err
	}
	binding := admission.ValidatingAdmissionPolicyBinding(f.name).WithLabels(labels).WithSpec(
		admission.ValidatingAdmissionPolicyBindingSpec().WithPolicyName(f.name).WithValidationActions(admissionv1.Deny))
	_, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Apply(ctx, binding, apply)
	return err
}

// letNodesWrite gives the nodes' own identities (system:node:<name>) the right to write the
// NodeComponents of their name, behind a fence that stands first: RBAC can't tell one node's
// object from another's.
func letNodesWrite(ctx context.Context, client kubernetes.Interface) error {
	labels := map[string]string{managedBy: fieldManager}
	for _, f := range fences {
		if err := f.apply(ctx, client, labels); err != nil {
			return err
		}
	}
	role := rbac.ClusterRole(nodeRule).WithLabels(labels).WithRules(rbac.PolicyRule().
		WithVerbs("get", "list", "watch", "create", "patch").WithAPIGroups(nodestatus.Group).WithResources(nodestatus.NodeComponentsResource))
	if _, err := client.RbacV1().ClusterRoles().Apply(ctx, role, apply); err != nil {
		return err
	}
	binding := rbac.ClusterRoleBinding(nodeRule).WithLabels(labels).
		WithRoleRef(rbac.RoleRef().WithAPIGroup("rbac.authorization.k8s.io").WithKind("ClusterRole").WithName(nodeRule)).
		WithSubjects(rbac.Subject().WithAPIGroup("rbac.authorization.k8s.io").WithKind("Group").WithName("system:nodes"))
	if _, err := client.RbacV1().ClusterRoleBindings().Apply(ctx, binding, apply); err != nil {
		return err
	}
	return heeded(ctx, client)
}

// heeded waits until the API server's authorizer, which reads roles from a cache, knows of the
// nodes' right: their first request must not be refused. There is no event for it.
func heeded(ctx context.Context, client kubernetes.Interface) error {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: "system:node:", Groups: []string{"system:nodes", "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "patch", Group: nodestatus.Group, Resource: nodestatus.NodeComponentsResource},
	}}
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		answer, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return answer.Status.Allowed, nil
	})
}
