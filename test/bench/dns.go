package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/dnsload"
	"github.com/k3m-io/k3m/test/harness"
)

// dnsServices are how many Services' names are asked for.
const dnsServices = 200

// dnsFigures are what one node's DNS answers.
type dnsFigures struct {
	dnsload.Result
	// RatePerSecond is what was asked for, CPUPercent what the component took of one
	// core meanwhile.
	RatePerSecond int     `json:"queriesPerSecond"`
	CPUPercent    float64 `json:"cpuPercent"`
	PSSBytes      int64   `json:"pssBytes"`
}

// measureDNS asks the cluster's DNS on its Service's address, from the node, for the names
// of Services at a fixed rate; kube-proxy's rules are in between.
func measureDNS(lab *harness.Lab, tb harness.TB, rate int, length time.Duration) (*dnsFigures, error) {
	own := &harness.Bench{}
	defer own.Close()
	ctx, cancel := context.WithTimeout(context.Background(), length+3*time.Minute)
	defer cancel()
	n := lab.NewHost(own, "dns").Serve(own)
	client, err := n.WaitReady(ctx)
	if err != nil {
		return nil, err
	}
	all, err := waitComponents(ctx, n, func(all map[string]harness.Component) bool { return all["dns.coredns"].Ready() })
	if err != nil {
		return nil, err
	}
	load := dnsload.Load{Server: netip.MustParseAddrPort("10.43.0.10:53"), Dial: n.Host.Dial, Rate: rate, For: length}
	for i := range dnsServices {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("bench-", i)},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		if _, err := client.CoreV1().Services("default").Create(ctx, s, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		load.Questions = append(load.Questions, dns.Question{Name: s.Name + ".default.svc.cluster.local.", Qtype: dns.TypeA})
	}
	warm := load
	warm.Rate, warm.For = rate/10, time.Second
	for answered := false; !answered; { // the last Service is known
		r, err := dnsload.Run(ctx, warm)
		if err != nil {
			return nil, err
		}
		answered = r.Answered == r.Sent || ctx.Err() != nil
	}
	pid := 0
	if list, err := processesOf(ctx, n); err == nil {
		pid = list["dns.coredns"]
	}
	if pid == 0 {
		return nil, fmt.Errorf("dns.coredns has no process: %+v", all["dns.coredns"])
	}
	before, err := readCounters(pid)
	if err != nil {
		return nil, err
	}
	figures := &dnsFigures{RatePerSecond: rate}
	if figures.Result, err = dnsload.Run(ctx, load); err != nil {
		return nil, err
	}
	after, err := readCounters(pid)
	if err != nil {
		return nil, err
	}
	memory, err := readMemory(pid)
	if err != nil {
		return nil, err
	}
	figures.PSSBytes = memory.PSSBytes
	figures.CPUPercent = round(float64(after.ticks-before.ticks) / ticksPerSecond / length.Seconds() * 100)
	n.Stop(own)
	if own.Failed() {
		tb.Errorf("the measurement of DNS failed")
	}
	return figures, nil
}
