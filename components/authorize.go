package components

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/k3m-io/k3m/sdk"
	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	rbac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	managedBy    = "app.kubernetes.io/managed-by"
	fieldManager = "k3m"
	// componentPrefix begins the names of a component's group, role and binding, which
	// are all the same: "k3m:component:cni.flannel".
	componentPrefix = "k3m:component:"
	// nodeComponents is the group of components that run on every node, and so with
	// credentials that every node holds.
	nodeComponents = "k3m:node-components"
)

// apply is how all objects are written: what k3m owns is k3m's, whoever changed it.
var apply = metav1.ApplyOptions{FieldManager: fieldManager, Force: true}

// Groups are the groups in a component's client certificate. The first has the rights of
// its Info.
func Groups(info sdk.Info) []string {
	groups := []string{componentPrefix + info.ID(), "k3m:components"}
	if info.Scope == sdk.NodeScope {
		groups = append(groups, nodeComponents)
	}
	return groups
}

// LeftoverError says which rights of components that are not selected, or addresses that they
// gave, could not be taken away. Those that are selected have theirs.
type LeftoverError struct{ Err error }

func (e *LeftoverError) Error() string {
	return "take away what other components had: " + e.Err.Error()
}
func (e *LeftoverError) Unwrap() error { return e.Err }

// Authorize gives each component exactly the API rights of its Info, takes those of all
// other components away (and the addresses that these gave to Services), and sees to it
// that components of node scope can write only what belongs to their own node. It returns
// when the API server heeds the rights; a *LeftoverError when only the taking away failed.
func Authorize(ctx context.Context, client kubernetes.Interface, infos []sdk.Info) error {
	var selected []sdk.Info
	for _, info := range infos {
		if len(info.Rules) > 0 {
			selected = append(selected, info)
		}
	}
	// The fence stands before the rights are given.
	if err := applyPolicies(ctx, client); err != nil {
		return fmt.Errorf("authorize components: %w", err)
	}
	writes, writeCtx := errgroup.WithContext(ctx)
	for _, info := range selected {
		writes.Go(func() error { return authorizeOne(writeCtx, client, info) })
	}
	var left error
	writes.Go(func() error { left = unauthorizeOthers(writeCtx, client, selected); return nil })
	if err := writes.Wait(); err != nil {
		return fmt.Errorf("authorize components: %w", err)
	}
	if left != nil {
		return fmt.Errorf("authorize components: %w", &LeftoverError{left})
	}
	return nil
}

func authorizeOne(ctx context.Context, client kubernetes.Interface, info sdk.Info) error {
	name, labels := componentPrefix+info.ID(), map[string]string{managedBy: fieldManager}
	role := rbac.ClusterRole(name).WithLabels(labels)
	for _, r := range info.Rules {
		role.WithRules(rbac.PolicyRule().WithVerbs(r.Verbs...).WithAPIGroups(r.APIGroups...).WithResources(r.Resources...).
			WithResourceNames(r.ResourceNames...).WithNonResourceURLs(r.NonResourceURLs...))
	}
	if _, err := client.RbacV1().ClusterRoles().Apply(ctx, role, apply); err != nil {
		return fmt.Errorf("component %s: %w", info.ID(), err)
	}
	binding := rbac.ClusterRoleBinding(name).WithLabels(labels).
		WithRoleRef(rbac.RoleRef().WithAPIGroup("rbac.authorization.k8s.io").WithKind("ClusterRole").WithName(name)).
		WithSubjects(rbac.Subject().WithAPIGroup("rbac.authorization.k8s.io").WithKind("Group").WithName(name))
	if _, err := client.RbacV1().ClusterRoleBindings().Apply(ctx, binding, apply); err != nil {
		return fmt.Errorf("component %s: %w", info.ID(), err)
	}
	return heeded(ctx, client, info)
}

// heeded waits until the API server's authorizer, which reads roles from a cache, knows
// of the component's rights: its first request must not be refused. There is no event for
// it.
func heeded(ctx context.Context, client kubernetes.Interface, info sdk.Info) error {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: componentPrefix + info.ID() + ":", Groups: append(Groups(info), "system:authenticated"),
	}}
	rule := info.Rules[len(info.Rules)-1]
	if len(rule.NonResourceURLs) > 0 {
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: rule.Verbs[0], Path: rule.NonResourceURLs[0]}
	} else {
		resource, subresource, _ := strings.Cut(rule.Resources[0], "/")
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: rule.Verbs[0], Group: rule.APIGroups[0], Resource: resource, Subresource: subresource}
		if len(rule.ResourceNames) > 0 {
			review.Spec.ResourceAttributes.Name = rule.ResourceNames[0]
		}
	}
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		answer, err := client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return false, err
		}
		return answer.Status.Allowed, nil
	})
	if err != nil {
		return fmt.Errorf("component %s: wait until its API rights are known to the API server: %w", info.ID(), err)
	}
	return nil
}

// unauthorizeOthers removes the bindings and roles of components that are not selected. A
// binding stays as long as addresses that its component gave do: it is the record of them.
func unauthorizeOthers(ctx context.Context, client kubernetes.Interface, selected []sdk.Info) error {
	ours := metav1.ListOptions{LabelSelector: managedBy + "=" + fieldManager}
	unwanted := func(name string) bool {
		id, isComponent := strings.CutPrefix(name, componentPrefix)
		return isComponent && !slices.ContainsFunc(selected, func(i sdk.Info) bool { return i.ID() == id })
	}
	bindings, err := client.RbacV1().ClusterRoleBindings().List(ctx, ours)
	if err != nil {
		return err
	}
	roles, err := client.RbacV1().ClusterRoles().List(ctx, ours)
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range bindings.Items {
		if !unwanted(b.Name) {
			continue
		}
		if id := strings.TrimPrefix(b.Name, componentPrefix); strings.HasPrefix(id, "servicelb.") {
			if err := withdrawAddresses(ctx, client, id); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		if err := client.RbacV1().ClusterRoleBindings().Delete(ctx, b.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for _, r := range roles.Items {
		if !unwanted(r.Name) {
			continue
		}
		if err := client.RbacV1().ClusterRoles().Delete(ctx, r.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
