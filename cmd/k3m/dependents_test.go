package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/sdk"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestDependents(t *testing.T) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	text := func(s string) *string { return &s }
	balanced := corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}}}
	client := fake.NewClientset(
		&corev1.PersistentVolumeClaim{ObjectMeta: meta("ours"), Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: text("fast")}},
		&corev1.PersistentVolumeClaim{ObjectMeta: meta("others"), Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: text("nfs")}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{StorageClassName: "fast"}},
		&corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}, Status: balanced},
		&corev1.Service{ObjectMeta: meta("pending"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}},
		&corev1.Service{ObjectMeta: meta("cloud"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: text("cloud/lb")}, Status: balanced},
		&networkingv1.Ingress{ObjectMeta: meta("site"), Spec: networkingv1.IngressSpec{IngressClassName: text("traefik")}},
		&networkingv1.Ingress{ObjectMeta: meta("other"), Spec: networkingv1.IngressSpec{IngressClassName: text("nginx")}},
		&corev1.Pod{ObjectMeta: meta("asks"), Spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}},
		&corev1.Pod{ObjectMeta: meta("on-the-host"), Spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}},
		&corev1.Pod{ObjectMeta: meta("ended"), Spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}},
		&networkingv1.NetworkPolicy{ObjectMeta: meta("closed")},
		&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta("busy"), Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType}, {Type: autoscalingv2.ResourceMetricSourceType}}}},
		&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta("one-container"), Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ContainerResourceMetricSourceType}}}},
		&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta("queue"), Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ExternalMetricSourceType}}}},
	)
	entries := map[string]components.Entry{}
	for _, id := range []string{"dns.coredns", "dns.other", "ingress.traefik", "servicelb.nodeip", "local-storage.local-path", "local-storage.other", "network-policy.a", "network-policy.b",
		"metrics-server.a", "addon.a"} {
		kind, name, _ := strings.Cut(id, ".")
		info := sdk.Info{Kind: kind, Name: name}
		if id == "local-storage.local-path" {
			info.Objects = []json.RawMessage{json.RawMessage(`{"kind":"StorageClass","metadata":{"name":"fast"}}`)}
		}
		entries[id] = components.Entry{Info: info}
	}
	selection := func(ids string) components.Selection {
		var s components.Selection
		for _, id := range strings.Fields(ids) {
			s.Entries = append(s.Entries, entries[id])
		}
		return s
	}
	for name, tc := range map[string]struct{ before, after, want string }{
		"storage":           {"local-storage.local-path addon.a", "addon.a", "local-storage.local-path: persistentvolumeclaim default/ours, persistentvolume pv"},
		"storage, replaced": {"local-storage.local-path", "local-storage.other", "local-storage.local-path: persistentvolumeclaim default/ours, persistentvolume pv"},
		"load balancer":     {"servicelb.nodeip", "", "servicelb.nodeip: service default/web"},
		"ingress":           {"ingress.traefik", "", "ingress.traefik: ingress default/site"},
		"DNS":               {"dns.coredns", "", "dns.coredns: pod default/asks"},
		"DNS, replaced":     {"dns.coredns", "dns.other", ""},
		"policies":          {"network-policy.a", "", "network-policy.a: networkpolicy default/closed"},
		"policies, of b":    {"network-policy.a", "network-policy.b", ""},
		"metrics":           {"metrics-server.a", "", "metrics-server.a: horizontalpodautoscaler default/busy, horizontalpodautoscaler default/one-container"},
		"nothing stops":     {"dns.coredns", "dns.coredns addon.a", ""},
		"nobody depends":    {"addon.a", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := findDependents(t.Context(), client, selection(tc.before), selection(tc.after))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range found {
				got = append(got, d.Component+": "+strings.Join(d.Objects, ", "))
				if d.Effect == "" {
					t.Errorf("%s: nothing says what it means", d.Component)
				}
			}
			if strings.Join(got, "; ") != tc.want {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}
