package components

import (
	"context"
	"strings"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	admission "k8s.io/client-go/applyconfigurations/admissionregistration/v1"
	"k8s.io/client-go/kubernetes"
)

// A component of node scope has the same rights on every node, and RBAC can't tell one
// node's objects from another's. These policies can: who holds the credentials of one
// node's component writes what belongs to that node, and nothing else. The node's name is
// the last part of the user's (k3m:component:cni.flannel:node-1), and names of nodes hold
// no colon.
var policies = []struct {
	name, group string
	versions    string
	resources   []string
	// owned is a CEL expression on SUBJECT, the object as it was before the request and
	// as it shall be: an update must not take an object away from another node, either.
	owned, message string
	// kept, if any, is a CEL expression on object and oldObject that an update must meet.
	kept, keptMessage string
}{
	{
		name: "k3m-node-components.nodes", group: "", versions: "v1", resources: []string{"nodes", "nodes/status"},
		owned:   "SUBJECT.metadata.name == variables.node",
		message: "a component may write the Node object of its own node alone",
		// A write of a Node's status may carry labels, which NodeRestriction keeps a kubelet
		// from, but not a component: they decide which pods come to a node.
		kept: "object.?metadata.?labels == oldObject.?metadata.?labels && object.spec == oldObject.spec && " +
			"object.?metadata.?ownerReferences == oldObject.?metadata.?ownerReferences",
		keptMessage: "a component may not change a Node's labels, owners or spec",
	}, {
		name: "k3m-node-components.csinodes", group: "storage.k8s.io", versions: "*", resources: []string{"csinodes"},
		owned:   "SUBJECT.metadata.name == variables.node",
		message: "a component may write the CSINode object of its own node alone",
	}, {
		name: "k3m-node-components.pods", group: "", versions: "v1", resources: []string{"pods", "pods/status"},
		owned:   "has(SUBJECT.spec.nodeName) && SUBJECT.spec.nodeName == variables.node",
		message: "a component may write pods of its own node alone",
	}, {
		name: "k3m-node-components.endpointslices", group: "discovery.k8s.io", versions: "*", resources: []string{"endpointslices"},
		owned: "!has(SUBJECT.endpoints) || SUBJECT.endpoints == null || " +
			"SUBJECT.endpoints.all(e, has(e.nodeName) && e.nodeName == variables.node)",
		message: "a component may write EndpointSlices whose endpoints are all on its own node",
	}, {
		name: "k3m-node-components.persistentvolumes", group: "", versions: "v1",
		resources: []string{"persistentvolumes", "persistentvolumes/status"},
		owned: "has(SUBJECT.spec.local) && has(SUBJECT.spec.nodeAffinity) && has(SUBJECT.spec.nodeAffinity.required) && " +
			"SUBJECT.spec.nodeAffinity.required.nodeSelectorTerms.size() == 1 && " +
			"SUBJECT.spec.nodeAffinity.required.nodeSelectorTerms.all(t, !has(t.matchFields) && has(t.matchExpressions) && " +
			"t.matchExpressions.size() == 1 && t.matchExpressions.all(e, e.key == 'kubernetes.io/hostname' && " +
			"e.operator == 'In' && e.values == [variables.node]))",
		message: "a component may write local PersistentVolumes of its own node alone",
		// A volume in use must not be turned over to another claim, nor outlive what its owner
		// decided.
		kept: "object.?spec.?claimRef == oldObject.?spec.?claimRef && object.spec.local == oldObject.spec.local && " +
			"object.?spec.?storageClassName == oldObject.?spec.?storageClassName && " +
			"object.?spec.?persistentVolumeReclaimPolicy == oldObject.?spec.?persistentVolumeReclaimPolicy",
		keptMessage: "a component may not change a PersistentVolume's claim, place, class or reclaim policy",
	}, {
		name: "k3m-node-components.persistentvolumeclaims", group: "", versions: "v1",
		resources: []string{"persistentvolumeclaims", "persistentvolumeclaims/status"},
		// An update may take the choice of this node back, but neither claim what was chosen
		// for another node nor choose one.
		owned: "!has(SUBJECT.metadata.annotations) || !('volume.kubernetes.io/selected-node' in SUBJECT.metadata.annotations) || " +
			"SUBJECT.metadata.annotations['volume.kubernetes.io/selected-node'] == variables.node",
		message: "a component may write PersistentVolumeClaims whose selected node is its own alone",
		kept: "has(oldObject.metadata.annotations) && 'volume.kubernetes.io/selected-node' in oldObject.metadata.annotations && " +
			"object.spec == oldObject.spec && object.?metadata.?labels == oldObject.?metadata.?labels && " +
			"object.?metadata.?finalizers == oldObject.?metadata.?finalizers && " +
			"object.?metadata.?ownerReferences == oldObject.?metadata.?ownerReferences",
		keptMessage: "a component may change only a claim that was given to its node, and not its spec, labels, finalizers or owners",
	}, {
		name: "k3m-node-components.csistoragecapacities", group: "storage.k8s.io", versions: "*",
		resources: []string{"csistoragecapacities"},
		owned: "has(SUBJECT.nodeTopology) && !has(SUBJECT.nodeTopology.matchExpressions) && has(SUBJECT.nodeTopology.matchLabels) && " +
			"SUBJECT.nodeTopology.matchLabels == {'kubernetes.io/hostname': variables.node}",
		message: "a component may publish the storage capacity of its own node alone",
	},
}

// applyPolicies writes the policies and their bindings.
func applyPolicies(ctx context.Context, client kubernetes.Interface) error {
	writes, ctx := errgroup.WithContext(ctx)
	labels := map[string]string{managedBy: fieldManager}
	for _, p := range policies {
		writes.Go(func() error {
			validations := []*admission.ValidationApplyConfiguration{
				admission.Validation().WithMessage(p.message).
					WithExpression("object == null || (" + strings.ReplaceAll(p.owned, "SUBJECT", "object") + ")"),
				admission.Validation().WithMessage(p.message).
					WithExpression("oldObject == null || (" + strings.ReplaceAll(p.owned, "SUBJECT", "oldObject") + ")"),
			}
			if p.kept != "" {
				validations = append(validations, admission.Validation().WithMessage(p.keptMessage).
					WithExpression("object == null || oldObject == null || ("+p.kept+")"))
			}
			policy := admission.ValidatingAdmissionPolicy(p.name).WithLabels(labels).WithSpec(
				admission.ValidatingAdmissionPolicySpec().
					WithFailurePolicy(admissionv1.Fail).
					WithMatchConstraints(admission.MatchResources().WithResourceRules(admission.NamedRuleWithOperations().
						WithAPIGroups(p.group).WithAPIVersions(p.versions).WithResources(p.resources...).
						WithOperations(admissionv1.Create, admissionv1.Update, admissionv1.Delete))).
					WithMatchConditions(admission.MatchCondition().WithName("node-components").
						WithExpression("'" + nodeComponents + "' in request.userInfo.groups")).
					WithVariables(admission.Variable().WithName("node").
						WithExpression("request.userInfo.username.split(':')[request.userInfo.username.split(':').size() - 1]")).
					WithValidations(validations...))
			if _, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Apply(ctx, policy, apply); err != nil {
				return err
			}
			binding := admission.ValidatingAdmissionPolicyBinding(p.name).WithLabels(labels).WithSpec(
				admission.ValidatingAdmissionPolicyBindingSpec().WithPolicyName(p.name).WithValidationActions(admissionv1.Deny))
			_, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Apply(ctx, binding, apply)
			return err
		})
	}
	return writes.Wait()
}
