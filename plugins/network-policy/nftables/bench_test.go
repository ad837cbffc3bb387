package nftables

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/knftables"
)

// The scene of the benchmarks: so many pods, all on this node, and so many policies, each of
// which selects a tenth of its namespace's pods and lets in another tenth. It is what
// docs/adr/0007 has its figures from.
const (
	benchNamespaces = 10
	benchPods       = 500
	benchPolicies   = 500
)

func benchPod(i int) *pod {
	ns := i % benchNamespaces
	p := withAddrs(podObject(fmt.Sprintf("ns-%d", ns), fmt.Sprintf("pod-%d", i), fmt.Sprintf("app=app-%d", i/benchNamespaces%10), nodeName),
		netip.AddrFrom4([4]byte{10, 42, byte(i / 250), byte(2 + i%250)}))
	return podOf(p, nodeName)
}

func benchPolicy(i, port int) *policy {
	return policyOf(policyObject(fmt.Sprintf("ns-%d", i%benchNamespaces), fmt.Sprintf("policy-%d", i), fmt.Sprintf(
		`{podSelector: {matchLabels: {app: app-%d}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: app-%d}}}],
		ports: [{port: %d}]}], egress: [{to: [{podSelector: {matchLabels: {app: app-%d}}}], ports: [{port: %d}]}]}`,
		i/benchNamespaces%10, (i/benchNamespaces+1)%10, port+i, (i/benchNamespaces+2)%10, port+i)))
}

// counting counts what goes to nft, and the processor's time, nft's included.
type counting struct {
	knftables.Interface
	bytes, operations int
	start             time.Duration
}

// cpu is the time of the processor that this process and those that it started have used.
func cpu(b *testing.B) (total time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		must(b, syscall.Getrusage(who, &usage))
		total += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return total
}

func (c *counting) Run(ctx context.Context, tx *knftables.Transaction) error {
	c.bytes += len(tx.String())
	c.operations += tx.NumOperations()
	return c.Interface.Run(ctx, tx)
}

func benchScene(b *testing.B) (*engine, *programmer, *counting) {
	if os.Getuid() != 0 {
		b.Skip("needs root: it programs nftables")
	}
	table, err := knftables.New(knftables.InetFamily, tableName)
	must(b, err)
	b.Cleanup(func() {
		tx := table.NewTransaction()
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		must(b, table.Run(context.Background(), tx))
	})
	e := newEngine(nodeName, []family{ipv4})
	for i := range benchNamespaces {
		e.setNamespace(fmt.Sprintf("ns-%d", i), labels.Set{}, true)
	}
	for i := range benchPods {
		p := benchPod(i)
		e.setPod(p.objectKey, p)
	}
	for i := range benchPolicies {
		p := benchPolicy(i, 1000)
		e.setPolicy(p.objectKey, p)
	}
	c := &counting{Interface: table, start: cpu(b)}
	program := &programmer{nft: c, fresh: true, network: network{
		families: []family{ipv4}, bridge: "cni0", subnets: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/23")},
	}}
	return e, program, c
}

// BenchmarkAll programs all from nothing: what a start costs.
func BenchmarkAll(b *testing.B) {
	e, program, c := benchScene(b)
	for b.Loop() {
		program.fresh = true
		syncNow(b, program, e)
	}
	c.report(b)
	b.ReportMetric(float64(e.size().elements), "elements")
	b.ReportMetric(float64(e.size().chains), "chains")
}

// BenchmarkAllWorkedOut is the part of a start that is not nft's.
func BenchmarkAllWorkedOut(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		var pods []*pod
		var policies []*policy
		for i := range benchPods {
			pods = append(pods, benchPod(i))
		}
		for i := range benchPolicies {
			policies = append(policies, benchPolicy(i, 1000))
		}
		b.StartTimer()
		e := newEngine(nodeName, []family{ipv4})
		for i := range benchNamespaces {
			e.setNamespace(fmt.Sprintf("ns-%d", i), labels.Set{}, true)
		}
		for _, p := range pods {
			e.setPod(p.objectKey, p)
		}
		for _, p := range policies {
			e.setPolicy(p.objectKey, p)
		}
		e.judge()
	}
}

// BenchmarkPolicyChange changes the port of one policy.
func BenchmarkPolicyChange(b *testing.B) {
	e, program, c := benchScene(b)
	syncNow(b, program, e)
	*c = counting{Interface: c.Interface, start: cpu(b)}
	for i := 0; b.Loop(); i++ {
		p := benchPolicy(17, 2000+i%2)
		e.setPolicy(p.objectKey, p)
		syncNow(b, program, e)
	}
	c.report(b)
}

// BenchmarkPodChange lets one pod go and one come in turn.
func BenchmarkPodChange(b *testing.B) {
	e, program, c := benchScene(b)
	syncNow(b, program, e)
	*c = counting{Interface: c.Interface, start: cpu(b)}
	for i := 0; b.Loop(); i++ {
		p := benchPod(17)
		if i%2 == 0 {
			e.setPod(p.objectKey, nil)
		} else {
			e.setPod(p.objectKey, p)
		}
		syncNow(b, program, e)
	}
	c.report(b)
}

func syncNow(b *testing.B, program *programmer, e *engine) {
	b.Helper()
	if _, err := program.sync(context.Background(), e); err != nil {
		b.Fatal(err)
	}
}

func (c *counting) report(b *testing.B) {
	b.ReportMetric(float64((cpu(b)-c.start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(c.bytes)/float64(b.N), "nft-bytes/op")
	b.ReportMetric(float64(c.operations)/float64(b.N), "nft-ops/op")
}

// BenchmarkConnection opens and closes TCP connections between two pods of the node: without
// rules, with rules but no policy, and with policies.
func BenchmarkConnection(b *testing.B) {
	n := newNode(b)
	n.namespaces(map[string]string{"ns-0": ""})
	client, server := n.newPod(240, "ns-0", "client", "app=app-0"), n.newPod(241, "ns-0", "server", "app=app-1")
	measure := func(b *testing.B) {
		start := cpu(b)
		defer func() { b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(b.N), "cpu-µs/op") }()
		client.do(func() {
			for b.Loop() {
				conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", "10.42.0.241:80")
				must(b, err)
				// No TIME_WAIT, or the client's ports are used up.
				must(b, conn.(*net.TCPConn).SetLinger(0))
				_ = conn.Close()
			}
		})
	}
	b.Run("no rules", measure)
	e := newEngine(nodeName, []family{ipv4})
	e.setNamespace("ns-0", labels.Set{}, true)
	for _, p := range []*testPod{client, server} {
		e.setPod(objectKey{"ns-0", p.pod.Name}, podOf(p.pod, nodeName))
	}
	table, err := knftables.New(knftables.InetFamily, tableName)
	must(b, err)
	program := &programmer{nft: table, fresh: true, network: network{
		families: []family{ipv4}, bridge: "cni0", subnets: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/24")},
	}}
	syncNow(b, program, e)
	b.Run("no policies", measure)
	for _, count := range []int{1, 10, 100, benchPolicies} {
		for i := range count {
			spec := fmt.Sprintf("[{ports: [{port: %d}], PEERS: [{podSelector: {matchLabels: {app: app-%d}}}]}]", 2000+i, i)
			if i == count-1 { // the one that lets in is looked at last, if at all
				spec = "[{ports: [{port: 80}], PEERS: [{podSelector: {}}]}]"
			}
			p := policyOf(policyObject("ns-0", fmt.Sprint(i), "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: "+
				strings.ReplaceAll(spec, "PEERS", "from")+", egress: "+strings.ReplaceAll(spec, "PEERS", "to")+"}"))
			e.setPolicy(p.objectKey, p)
		}
		syncNow(b, program, e)
		b.Run(fmt.Sprintf("policies that select both pods: %d", count), measure)
	}
}

// BenchmarkNewPod takes the time from host-local's record of an address to the pod's entry in the
// kernel, while a policy is there: how soon a pod can talk whose status nobody knows.
func BenchmarkNewPod(b *testing.B) {
	n := newNode(b)
	n.namespaces(map[string]string{"a": ""})
	n.api.put(policyObject("a", "deny", denyIngress))
	n.run()
	await := func(addr netip.Addr, there bool) {
		for {
			if _, err := nft("get", "element", "inet", tableName, "ingress4", "{ "+addr.String()+" }"); err == nil == there {
				return
			}
		}
	}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		addr := netip.AddrFrom4([4]byte{10, 42, 0, byte(2 + i%250)})
		o := podObject("a", fmt.Sprintf("pod-%d", i), "", nodeName)
		n.api.put(o)
		record := filepath.Join(n.records, "k3m", addr.String())
		b.StartTimer()
		must(b, os.WriteFile(record, nil, 0o600))
		await(addr, true)
		b.StopTimer()
		n.api.remove(o)
		must(b, os.Remove(record))
		await(addr, false)
		b.StartTimer()
	}
}
