package support

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

const (
	// page is how many objects are asked for at a time, maxObjects how many of a kind at all.
	page       = 500
	maxObjects = 5000
	// maxSecrets bounds how many bytes of the cluster's secrets are looked for in the bundle.
	maxSecrets = 32 << 20
)

// ClusterSecrets are the values of all Secrets of the cluster: what must not be in the bundle.
func ClusterSecrets(ctx context.Context, config *rest.Config) ([]string, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	var values []string
	size := 0
	for next := ""; ; {
		secrets, err := client.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{Limit: page, Continue: next})
		if err != nil {
			return nil, fmt.Errorf("list the cluster's secrets, to keep them out: %w", err)
		}
		for _, s := range secrets.Items {
			for key, value := range s.Data {
				if public(key) {
					continue
				}
				if size += len(value); size > maxSecrets {
					return nil, fmt.Errorf("the cluster has more than %d bytes of secrets, too many to look for", maxSecrets)
				}
				values = append(values, string(value))
			}
		}
		if next = secrets.Continue; next == "" {
			return values, nil
		}
	}
}

// public parts of Secrets are names and certificates.
func public(key string) bool {
	return key == "namespace" || key == "username" || strings.HasSuffix(key, ".crt")
}

// dumped are what the bundle has of the cluster.
var dumped = []struct {
	resource  schema.GroupVersionResource
	namespace string
}{
	{schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, ""},
	{schema.GroupVersionResource{Version: "v1", Resource: "events"}, ""},
	{schema.GroupVersionResource{Version: "v1", Resource: "pods"}, metav1.NamespaceSystem},
	{schema.GroupVersionResource{Version: "v1", Resource: "services"}, metav1.NamespaceSystem},
	{schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}, metav1.NamespaceSystem},
	{schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}, corev1.NamespaceNodeLease},
	{schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "storageclasses"}, ""},
	{schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}, ""},
	{schema.GroupVersionResource{Group: "k3m.io", Version: "v1alpha1", Resource: "components"}, ""},
	{schema.GroupVersionResource{Group: "k3m.io", Version: "v1alpha1", Resource: "nodecomponents"}, ""},
}

// AddCluster writes objects of the cluster, without what in them is often secret.
func (b *Bundle) AddCluster(ctx context.Context, config *rest.Config) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		b.Failed("cluster", err)
		return
	}
	for _, d := range dumped {
		var all []map[string]any
		var failed error
		for next := ""; ; {
			list, err := client.Resource(d.resource).Namespace(d.namespace).List(ctx, metav1.ListOptions{Limit: page, Continue: next})
			if err != nil {
				failed = err
				break
			}
			for i := range list.Items {
				scrub(&list.Items[i])
				all = append(all, list.Items[i].Object)
			}
			if next = list.GetContinue(); next == "" || len(all) >= maxObjects {
				break
			}
		}
		name := "cluster/" + d.resource.Resource + ".yaml"
		if failed != nil {
			b.Failed(name, failed)
		}
		if len(all) > 0 {
			text, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": all})
			if err != nil {
				b.Failed(name, err)
				continue
			}
			b.Add(name, string(text))
		}
	}
}

// leftOut stands for what is left out of an object.
const leftOut = "[left out]"

// annotators are those whose annotations are kept.
var annotators = []string{"kubernetes.io", "k8s.io", "k3m.io", "flannel.alpha.coreos.com"}

// scrub takes out of an object who wrote it, other people's annotations, and the words and
// variables of containers.
func scrub(o *unstructured.Unstructured) {
	o.SetManagedFields(nil)
	annotations := o.GetAnnotations()
	for key := range annotations {
		if !annotator(key) || key == corev1.LastAppliedConfigAnnotation {
			annotations[key] = leftOut
		}
	}
	if len(annotations) > 0 {
		o.SetAnnotations(annotations)
	}
	if o.GetKind() != "Pod" {
		return
	}
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &pod); err != nil {
		unstructured.RemoveNestedField(o.Object, "spec") // what can't be read can't be cleaned
		return
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			scrubContainer(&containers[i])
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		scrubContainer(&c)
		pod.Spec.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	clean, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&pod)
	if err != nil {
		unstructured.RemoveNestedField(o.Object, "spec")
		return
	}
	clean["apiVersion"], clean["kind"] = "v1", "Pod"
	o.Object = clean
}

func scrubContainer(c *corev1.Container) {
	if len(c.Command) > 0 {
		c.Command = []string{leftOut}
	}
	if len(c.Args) > 0 {
		c.Args = []string{leftOut}
	}
	for i := range c.Env {
		if c.Env[i].Value != "" {
			c.Env[i].Value = leftOut
		}
	}
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if probe != nil {
			scrubHandler(&probe.Exec, probe.HTTPGet)
		}
	}
	c.Lifecycle = nil
}

// scrubHandler takes the words of a command and the headers of a request out of a probe.
func scrubHandler(exec **corev1.ExecAction, get *corev1.HTTPGetAction) {
	if *exec != nil {
		*exec = &corev1.ExecAction{Command: []string{leftOut}}
	}
	if get != nil {
		get.HTTPHeaders = nil
	}
}

func annotator(key string) bool {
	domain, _, found := strings.Cut(key, "/")
	if !found {
		return false
	}
	for _, known := range annotators {
		if domain == known || strings.HasSuffix(domain, "."+known) {
			return true
		}
	}
	return false
}
