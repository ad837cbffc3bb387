package controlplane

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// How long a hook may take, as upstream's, and how often it tries.
const (
	hookTimeout  = 30 * time.Second
	hookInterval = 100 * time.Millisecond
)

// roleWriters is how many roles are written at the same time. The database takes one write
// after the other; the others are prepared meanwhile.
const roleWriters = 4

// bootstrapRoles is a post-start hook: it makes the default roles and bindings what
// Kubernetes' policy says, with Kubernetes' own reconciliation, and adds k3m's.
//
// It takes the place of upstream's rbac/bootstrap-roles, which waits for a whole second before
// it does anything and asks for each of some 200 objects on its own, and which the API server's
// readiness waits for. This one lists them, and writes what is missing or differs. It leaves
// out upstream's migrations from Kubernetes before 1.14: there is no such k3m.
func bootstrapRoles(hook genericapiserver.PostStartHookContext) error {
	client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("create default roles: %w", err)
	}
	return retryHook(hook, "create default roles", func(ctx context.Context) error { return reconcileRoles(ctx, client) })
}

// retryHook runs f until it succeeds; an error ends the process, so it must be a last resort.
func retryHook(hook genericapiserver.PostStartHookContext, what string, f func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(hook, hookInterval, hookTimeout, true, func(ctx context.Context) (bool, error) {
		if last = f(ctx); last != nil {
			klog.V(1).InfoS("trying again", "to", what, "err", last)
		}
		return last == nil, nil
	})
	if err != nil && hook.Err() == nil {
		return fmt.Errorf("%s: %w", what, last)
	}
	return nil // done, or stopping
}

// kubeletAdmin lets the API server reach the kubelets: for logs, exec and metrics.
var kubeletAdmin = rbacv1.ClusterRoleBinding{
	ObjectMeta: metav1.ObjectMeta{Name: userAPIServer},
	RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:kubelet-api-admin"},
	Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: userAPIServer}},
}

// metricsReader lets those who may view, edit or administer a namespace read its pods' resource
// metrics (kubectl top), and those with these rights in the cluster its nodes'. The role is
// metrics-server's own; it gives nothing where nothing serves that API. It is here since a
// component can't give rights to others.
var metricsReader = rbacv1.ClusterRole{
	ObjectMeta: metav1.ObjectMeta{Name: "system:aggregated-metrics-reader", Labels: map[string]string{
		"rbac.authorization.k8s.io/aggregate-to-view":  "true",
		"rbac.authorization.k8s.io/aggregate-to-edit":  "true",
		"rbac.authorization.k8s.io/aggregate-to-admin": "true",
	}},
	Rules: []rbacv1.PolicyRule{{
		Verbs: []string{"get", "list", "watch"}, APIGroups: []string{"metrics.k8s.io"}, Resources: []string{"nodes", "pods"},
	}},
}

func reconcileRoles(ctx context.Context, client kubernetes.Interface) error {
	roles, bindings, err := knownRoles(ctx, client)
	if err != nil {
		return err
	}
	g := errgroup.Group{}
	g.SetLimit(roleWriters)
	role := func(owner reconciliation.RuleOwner, client reconciliation.RuleOwnerModifier) {
		g.Go(func() error {
			opts := reconciliation.ReconcileRoleOptions{Role: owner, Confirm: true, Client: cachedRoles{client, roles}}
			_, err := opts.Run()
			return err
		})
	}
	binding := func(b reconciliation.RoleBinding, client reconciliation.RoleBindingModifier) {
		g.Go(func() error {
			opts := reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Confirm: true, Client: cachedBindings{client, bindings}}
			_, err := opts.Run()
			return err
		})
	}

	rbac := client.RbacV1()
	clusterRoles := append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...)
	for _, r := range append(clusterRoles, metricsReader) {
		role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &r}, reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()})
	}
	clusterBindings := append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...)
	for _, b := range append(clusterBindings, kubeletAdmin) {
		binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &b}, reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()})
	}
	for _, inNamespace := range bootstrappolicy.NamespaceRoles() {
		for _, r := range inNamespace {
			role(reconciliation.RoleRuleOwner{Role: &r}, reconciliation.RoleModifier{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()})
		}
	}
	for _, inNamespace := range bootstrappolicy.NamespaceRoleBindings() {
		for _, b := range inNamespace {
			binding(reconciliation.RoleBindingAdapter{RoleBinding: &b}, reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()})
		}
	}
	return g.Wait()
}

// knownRoles lists what is there, by namespace and name.
func knownRoles(ctx context.Context, client kubernetes.Interface) (map[string]reconciliation.RuleOwner, map[string]reconciliation.RoleBinding, error) {
	rbac := client.RbacV1()
	clusterRoles, err := rbac.ClusterRoles().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	clusterBindings, err := rbac.ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	roles, err := rbac.Roles(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	bindings, err := rbac.RoleBindings(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	knownRoles := map[string]reconciliation.RuleOwner{}
	for i := range clusterRoles.Items {
		knownRoles[roleKey("", clusterRoles.Items[i].Name)] = reconciliation.ClusterRoleRuleOwner{ClusterRole: &clusterRoles.Items[i]}
	}
	for i := range roles.Items {
		knownRoles[roleKey(roles.Items[i].Namespace, roles.Items[i].Name)] = reconciliation.RoleRuleOwner{Role: &roles.Items[i]}
	}
	knownBindings := map[string]reconciliation.RoleBinding{}
	for i := range clusterBindings.Items {
		knownBindings[roleKey("", clusterBindings.Items[i].Name)] = reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &clusterBindings.Items[i]}
	}
	for i := range bindings.Items {
		knownBindings[roleKey(bindings.Items[i].Namespace, bindings.Items[i].Name)] = reconciliation.RoleBindingAdapter{RoleBinding: &bindings.Items[i]}
	}
	return knownRoles, knownBindings, nil
}

func roleKey(namespace, name string) string { return namespace + "/" + name }

// cachedRoles and cachedBindings read from lists and write to the API.
type (
	cachedRoles struct {
		reconciliation.RuleOwnerModifier
		known map[string]reconciliation.RuleOwner
	}
	cachedBindings struct {
		reconciliation.RoleBindingModifier
		known map[string]reconciliation.RoleBinding
	}
)

func (c cachedRoles) Get(namespace, name string) (reconciliation.RuleOwner, error) {
	if role, ok := c.known[roleKey(namespace, name)]; ok {
		return role, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "roles"}, name)
}

func (c cachedBindings) Get(namespace, name string) (reconciliation.RoleBinding, error) {
	if binding, ok := c.known[roleKey(namespace, name)]; ok {
		return binding, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: "rolebindings"}, name)
}
