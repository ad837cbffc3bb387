package coredns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/test/dnsload"
)

// BenchmarkQueries asks for the names of 500 Services and for names outside the cluster
// at a fixed rate, K3M_COREDNS_BENCH_RATE or 20,000 a second, over UDP, in this
// process; test/bench measures the component in its own.
func BenchmarkQueries(b *testing.B) {
	needNetwork(b)
	rate := 20000
	if text := os.Getenv("K3M_COREDNS_BENCH_RATE"); text != "" {
		var err error
		rate, err = strconv.Atoi(text)
		must(b, err)
	}
	api := newTestAPI(b)
	fill(api)
	var questions []dns.Question
	for n := range 500 {
		name := fmt.Sprintf("s%d", n)
		api.put("services", &corev1.Service{ObjectMeta: meta("default", name), Spec: corev1.ServiceSpec{
			ClusterIP: fmt.Sprintf("10.43.%d.%d", 2+n/250, 1+n%250), ClusterIPs: []string{fmt.Sprintf("10.43.%d.%d", 2+n/250, 1+n%250)},
			Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		}})
		questions = append(questions, dns.Question{Name: name + ".default.svc.cluster.local.", Qtype: dns.TypeA})
		if n%5 == 0 {
			questions = append(questions, dns.Question{Name: fmt.Sprintf("www%d.example.org.", n), Qtype: dns.TypeA})
		}
	}
	startUpstream(b, upstreamA, nil)
	f := start(b, api, `{}`, []string{upstreamA})
	f.reports.wait(b, "ready")
	load := dnsload.Load{Server: netip.MustParseAddrPort(gateway4 + ":53"), Questions: questions, Rate: rate / 4, For: time.Second}
	_, err := dnsload.Run(context.Background(), load) // warm
	must(b, err)
	load.Rate, load.For = rate, 5*time.Second
	for b.Loop() {
		r, err := dnsload.Run(context.Background(), load)
		must(b, err)
		b.ReportMetric(r.Rate, "answers/s")
		b.ReportMetric(float64(r.P50.Microseconds()), "p50-µs")
		b.ReportMetric(float64(r.P99.Microseconds()), "p99-µs")
		b.ReportMetric(float64(r.Max.Microseconds()), "max-µs")
		b.ReportMetric(float64(r.Sent-r.Answered), "unanswered")
	}
}
