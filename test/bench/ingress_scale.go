package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/k3m-io/k3m/test/harness"
)

// controllerFigures are those of one controller, alone in its cluster.
type controllerFigures struct {
	// PSS is of all its processes, 10 s after it had nothing to do any more: without Ingresses,
	// with a thousand, and with Many of them.
	IdlePSS     int64 `json:"idlePSSBytes"`
	ThousandPSS int64 `json:"thousandPSSBytes"`
	ManyPSS     int64 `json:"manyPSSBytes,omitempty"`
	// First200 is from the API's answer to the creation of an Ingress to the first 200, with
	// few Ingresses and with Many of them.
	First200     stats  `json:"first200Seconds"`
	First200Many *stats `json:"first200OfManySeconds,omitempty"`
	// Endpoint is from the API's answer to the change of an EndpointSlice to the first answer
	// of the new pod.
	Endpoint stats `json:"endpointChangeSeconds"`
	// Many is how many Ingresses there were; Created what their creation took, Last how long
	// after it the last one was served, and Unserved how many were not 200 then.
	Many     int     `json:"many,omitempty"`
	Created  float64 `json:"manyCreatedSeconds,omitempty"`
	Last     float64 `json:"manyLastServedSeconds,omitempty"`
	Unserved int     `json:"manyUnserved,omitempty"`
}

const (
	// changesMeasured is how often an Ingress is made, and an endpoint is changed.
	changesMeasured = 20
	// settle is how long a controller rests before its memory is read.
	settle = 10 * time.Second
	few    = 1000
)

// measureController gives the figures of one controller in a cluster of its own.
func measureController(lab *harness.Lab, tb harness.TB, name string, many int) (controllerFigures, error) {
	own := &harness.Bench{}
	defer own.Close()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 20*time.Minute, fmt.Errorf("not within 20 minutes"))
	defer cancel()
	var f controllerFigures
	c, err := ingressCluster(ctx, lab, own, "enable: [ingress="+name+"]\n")
	if err != nil {
		return f, err
	}
	id := "ingress." + name
	rested := func() (int64, error) {
		if err := rest(ctx, c.node, settle); err != nil {
			return 0, err
		}
		return c.pssOf(ctx, id)
	}
	if f.IdlePSS, err = rested(); err != nil {
		return f, err
	}
	if f.First200, err = c.firsts(ctx, name, "few"); err != nil {
		return f, err
	}
	if f.Endpoint, err = c.endpointChanges(ctx, name); err != nil {
		return f, err
	}
	if _, err := c.fill(ctx, name, 0, few); err != nil {
		return f, err
	}
	if f.ThousandPSS, err = rested(); err != nil {
		return f, err
	}
	if many > few {
		start := time.Now()
		last, err := c.fill(ctx, name, few, many)
		if err != nil {
			return f, err
		}
		f.Many, f.Last = many, round(last.Seconds())
		f.Created = round((time.Since(start) - last).Seconds())
		if f.Unserved, err = c.unserved(ctx, many); err != nil {
			return f, err
		}
		if f.ManyPSS, err = rested(); err != nil {
			return f, err
		}
		firsts, err := c.firsts(ctx, name, "many")
		if err != nil {
			return f, err
		}
		f.First200Many = &firsts
	}
	tb.Logf("%s: %+v", id, f)
	c.node.Stop(own)
	if own.Failed() {
		tb.Errorf("the measurement of %s failed", id)
	}
	return f, nil
}

// firsts makes Ingresses one after another and gives the times until each is served.
func (c *ingressLab) firsts(ctx context.Context, class, label string) (stats, error) {
	var times []time.Duration
	for n := range changesMeasured {
		host := fmt.Sprintf("%s-%d.first.example", label, n)
		if err := c.create(ctx, fmt.Sprintf("first-%s-%d", label, n), class, host); err != nil {
			return stats{}, err
		}
		start := time.Now()
		if _, err := c.first(ctx, c.url(host, 80)); err != nil {
			return stats{}, err
		}
		times = append(times, time.Since(start))
	}
	return sumUp(times), nil
}

// endpointChanges sends a Service to the one pod and to the other, by an EndpointSlice that is
// no controller's but this client's, and gives the times until the other answers.
func (c *ingressLab) endpointChanges(ctx context.Context, class string) (stats, error) {
	pods, err := c.pods(ctx, 2)
	if err != nil {
		return stats{}, err
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "moving"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := c.client.CoreV1().Services("default").Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return stats{}, err
	}
	slice := func(pod string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: "moving", Labels: map[string]string{discoveryv1.LabelServiceName: "moving"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To(""), Port: ptr.To[int32](8080)}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{pod}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		}
	}
	slices := c.client.DiscoveryV1().EndpointSlices("default")
	if _, err := slices.Create(ctx, slice(pods[0]), metav1.CreateOptions{}); err != nil {
		return stats{}, err
	}
	if err := c.createFor(ctx, "moving", class, "moving.example", "moving"); err != nil {
		return stats{}, err
	}
	url := c.url("moving.example", 80)
	now, err := c.first(ctx, url)
	if err != nil {
		return stats{}, err
	}
	var times []time.Duration
	for n := range changesMeasured {
		if _, err := slices.Update(ctx, slice(pods[(n+1)%2]), metav1.UpdateOptions{}); err != nil {
			return stats{}, err
		}
		start := time.Now()
		before := now
		if now, err = c.until(ctx, url, func(body string) bool { return body != before }); err != nil {
			return stats{}, err
		}
		times = append(times, time.Since(start))
	}
	return sumUp(times), nil
}

// fill makes the Ingresses from one number to another, and gives how long after the last
// creation the last of them was served.
func (c *ingressLab) fill(ctx context.Context, class string, from, to int) (time.Duration, error) {
	group, creating := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for n := from; n < to; n++ {
		group.Go(func() error { return c.create(creating, fmt.Sprint("many-", n), class, manyHost(n)) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	start := time.Now()
	for _, n := range []int{to - 1, to - 8, from} { // those of the last are created in any order
		if _, err := c.first(ctx, c.url(manyHost(n), 80)); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

func manyHost(n int) string { return fmt.Sprintf("host-%d.many.example", n) }

// unserved asks for each of the Ingresses once and counts those without a 200.
func (c *ingressLab) unserved(ctx context.Context, count int) (int, error) {
	transport := c.web.Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = 8, 8
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	var bad atomic.Int64
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for n := range count {
		group.Go(func() error {
			status, _, err := getOnce(asking, client, c.url(manyHost(n), 80))
			if err != nil || status != http.StatusOK {
				bad.Add(1)
			}
			return asking.Err()
		})
	}
	err := group.Wait()
	return int(bad.Load()), err
}
