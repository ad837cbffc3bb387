package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
)

// maxNamed is how many objects are named of each sort; the rest is counted.
const maxNamed = 10

// dependents are the objects that depend on a component that is going to stop.
type dependents struct {
	Component string `json:"component"`
	// Effect says what stopping it means for them, one clause.
	Effect string `json:"effect"`
	// Objects are "kind namespace/name"; More counts those that are not named.
	Objects []string `json:"objects"`
	More    int      `json:"more,omitempty"`
}

func (d *dependents) add(kind, namespace, name string) {
	if len(d.Objects) >= maxNamed {
		d.More++
		return
	}
	d.Objects = append(d.Objects, kind+" "+strings.TrimPrefix(namespace+"/"+name, "/"))
}

// findDependents lists what depends on the components that stop between two selections.
func findDependents(ctx context.Context, client kubernetes.Interface, before, after components.Selection) ([]dependents, error) {
	var all []dependents
	for _, info := range before.Infos() {
		stays := slices.ContainsFunc(after.Entries, func(e components.Entry) bool { return e.ID() == info.ID() })
		replaced := slices.ContainsFunc(after.Entries, func(e components.Entry) bool { return e.Info.Kind == info.Kind })
		find := finders[info.Kind]
		// Another storage can't have the volumes, nor another ingress the classes; of all
		// other kinds the next one takes over.
		if stays || find == nil || replaced && info.Kind != "local-storage" && info.Kind != "ingress" {
			continue
		}
		d := dependents{Component: info.ID()}
		if err := find(ctx, client, info, &d); err != nil {
			return nil, fmt.Errorf("look for what depends on %s: %w", info.ID(), err)
		}
		if len(d.Objects) > 0 {
			all = append(all, d)
		}
	}
	return all, nil
}

var finders = map[string]func(context.Context, kubernetes.Interface, sdk.Info, *dependents) error{
	"local-storage": findVolumes, "servicelb": findBalanced, "ingress": findIngresses, "dns": findResolvers,
	"network-policy": findPolicies, "metrics-server": findAutoscalers,
}

// findVolumes finds the claims and volumes of the component's storage classes.
func findVolumes(ctx context.Context, client kubernetes.Interface, info sdk.Info, d *dependents) error {
	d.Effect = "every volume stays as it is and readable, but none is made, resized or removed any more"
	classes := objectNames(info, "StorageClass")
	claims, err := client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, c := range claims.Items {
		if c.Spec.StorageClassName != nil && slices.Contains(classes, *c.Spec.StorageClassName) {
			d.add("persistentvolumeclaim", c.Namespace, c.Name)
		}
	}
	volumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, v := range volumes.Items {
		if slices.Contains(classes, v.Spec.StorageClassName) {
			d.add("persistentvolume", "", v.Name)
		}
	}
	return nil
}

// findBalanced finds Services that have an address from the load balancer.
func findBalanced(ctx context.Context, client kubernetes.Interface, _ sdk.Info, d *dependents) error {
	d.Effect = "they lose their addresses"
	services, err := client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, s := range services.Items {
		ours := s.Spec.LoadBalancerClass == nil || strings.HasPrefix(*s.Spec.LoadBalancerClass, "k3m.io/")
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer && ours && len(s.Status.LoadBalancer.Ingress) > 0 {
			d.add("service", s.Namespace, s.Name)
		}
	}
	return nil
}

// findIngresses finds Ingresses of the component's classes.
func findIngresses(ctx context.Context, client kubernetes.Interface, info sdk.Info, d *dependents) error {
	d.Effect = "they are not served any more"
	classes := objectNames(info, "IngressClass")
	ingresses, err := client.NetworkingV1().Ingresses("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, i := range ingresses.Items {
		if i.Spec.IngressClassName != nil && slices.Contains(classes, *i.Spec.IngressClassName) {
			d.add("ingress", i.Namespace, i.Name)
		}
	}
	return nil
}

// findResolvers finds pods that ask the cluster's DNS.
func findResolvers(ctx context.Context, client kubernetes.Interface, _ sdk.Info, d *dependents) error {
	d.Effect = "they resolve no names any more"
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		asks := p.Spec.DNSPolicy == corev1.DNSClusterFirstWithHostNet || p.Spec.DNSPolicy == corev1.DNSClusterFirst && !p.Spec.HostNetwork
		if asks && !ended {
			d.add("pod", p.Namespace, p.Name)
		}
	}
	return nil
}

// findPolicies finds all NetworkPolicies.
func findPolicies(ctx context.Context, client kubernetes.Interface, _ sdk.Info, d *dependents) error {
	d.Effect = "nothing enforces them any more"
	policies, err := client.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range policies.Items {
		d.add("networkpolicy", p.Namespace, p.Name)
	}
	return nil
}

// findAutoscalers finds what scales by processor time or memory.
func findAutoscalers(ctx context.Context, client kubernetes.Interface, _ sdk.Info, d *dependents) error {
	d.Effect = "they scale nothing any more, for want of metrics"
	autoscalers, err := client.AutoscalingV2().HorizontalPodAutoscalers("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, a := range autoscalers.Items {
		if slices.ContainsFunc(a.Spec.Metrics, func(m autoscalingv2.MetricSpec) bool {
			return m.Type == autoscalingv2.ResourceMetricSourceType || m.Type == autoscalingv2.ContainerResourceMetricSourceType
		}) {
			d.add("horizontalpodautoscaler", a.Namespace, a.Name)
		}
	}
	return nil
}

// objectNames are the names of the component's own objects of a kind; without any, the
// component's name, which is then that of its class by custom.
func objectNames(info sdk.Info, kind string) []string {
	var names []string
	for _, raw := range info.Objects {
		var object struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		if json.Unmarshal(raw, &object) == nil && object.Kind == kind {
			names = append(names, object.Metadata.Name)
		}
	}
	if names == nil {
		names = []string{info.Name}
	}
	return names
}
