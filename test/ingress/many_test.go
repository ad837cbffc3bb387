package ingress

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// thousand adds so many Ingresses at once, which the others hardly feel. The bench has ten times as many.
func thousand(s *scene, _ controller) {
	const count, kept = 1000, "http://kept.example/"
	s.ingresses(simple("kept", rule("kept.example", "Prefix", "/", "a")))
	s.become(ask{url: kept, backend: "a"})
	asking := s.keepAsking(kept)
	config, err := s.node.Config()
	if err != nil {
		s.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		s.Fatal(err)
	}
	api := client.NetworkingV1().Ingresses(s.ns)
	group, ctx := errgroup.WithContext(within(s.T, 3*patience))
	group.SetLimit(8)
	for n := range count {
		group.Go(func() error {
			ing := &networkingv1.Ingress{}
			host := fmt.Sprintf("host-%d.many.example", n)
			if err := yaml.UnmarshalStrict([]byte(simple(fmt.Sprint("many-", n), rule(host, "Prefix", "/", "b"), rule(host, "Exact", "/exact", "c"))), ing); err != nil {
				return err
			}
			ing.Labels = map[string]string{"test": "many"}
			_, err := api.Create(ctx, ing, metav1.CreateOptions{})
			return err
		})
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := api.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "test=many"}); err != nil {
			s.Error(err)
		}
	})
	if err := group.Wait(); err != nil {
		s.Fatal(err)
	}
	created := time.Now()
	var asks []ask
	for _, n := range []int{0, count / 2, count - 1} {
		host := fmt.Sprintf("http://host-%d.many.example", n)
		asks = append(asks, ask{url: host, backend: "b"}, ask{url: host + "/exact", backend: "c"})
	}
	s.become(asks...)
	s.Logf("the last of %d Ingresses is served %s after its creation", count, time.Since(created).Round(time.Millisecond))
	s.edit("many-7", func(ing *networkingv1.Ingress) { ing.Spec.Rules[0].HTTP.Paths[0].Backend.Service.Name = "d" })
	s.become(ask{url: "http://host-7.many.example/", backend: "d"})
	asking.stop().none(s, fmt.Sprintf("the creation of %d Ingresses", count))
}
