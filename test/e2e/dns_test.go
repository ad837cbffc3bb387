package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// dnsPods are a client and what it asks for: a Service, and a headless one.
const dnsPods = `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: b, image: BUSYBOX, command: [sleep, "3600"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  hostname: first
  subdomain: headless
  terminationGracePeriodSeconds: 1
  containers: [{name: e, image: ECHO}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: server}, ports: [{name: http, port: 8080}]}
`

// outsideName is answered by a resolver outside of all nodes.
const outsideName = "www.dnstest.example."

// outsideResolver answers for outsideName on the address that the hosts' resolv.conf has,
// until it is stopped.
func outsideResolver(t *testing.T) (stop func()) {
	t.Helper()
	conn, err := lab.Switch.ListenPacket("udp4", net.JoinHostPort(harness.SwitchAddr.String(), "53"))
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		reply := new(dns.Msg).SetRcode(r, dns.RcodeNameError)
		if q := r.Question[0]; strings.EqualFold(q.Name, outsideName) {
			reply.Rcode = dns.RcodeSuccess
			if q.Qtype == dns.TypeA {
				reply.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: q.Qclass, Ttl: 1}, A: net.IPv4(203, 0, 113, 7)}}
			}
		}
		_ = w.WriteMsg(reply)
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	return func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// fromPod has the client pod ask its resolver, and gives what nslookup says.
func (s *scene) fromPod(name, qtype string) string {
	s.Helper()
	out, _ := s.node.Kubectl(within(s.T, 30*time.Second), "-n", s.ns, "exec", "client", "--", "nslookup", "-type="+qtype, name)
	return out
}

// untilFromPod asks until the answer holds the words.
func (s *scene) untilFromPod(name, qtype, words string) {
	s.Helper()
	_, err := eventually(within(s.T, 30*time.Second), func(context.Context) (any, error) {
		if out := s.fromPod(name, qtype); !strings.Contains(out, words) {
			return nil, fmt.Errorf("%s %s: %q, want %q", name, qtype, out, words)
		}
		return nil, nil
	})
	if err != nil {
		s.Error(err)
	}
}

// query asks a server from the host or from outside, and waits for at most two seconds.
func query(t *testing.T, dial func(context.Context, string, string) (net.Conn, error), network, server, name string) (*dns.Msg, error) {
	t.Helper()
	ctx := within(t, 2*time.Second)
	conn, err := dial(ctx, network, net.JoinHostPort(server, "53"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply, _, err := (&dns.Client{Net: network}).ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), &dns.Conn{Conn: conn})
	return reply, err
}

// TestDNS asks for names from a pod of a real cluster.
func TestDNS(t *testing.T) {
	s := play(t)
	waitComponent(t, within(t, pluginBackLimit), s.node, "dns.coredns", harness.Component.Ready)
	s.apply(dnsPods)
	s.pod("client")
	server := s.pod("server").Status.PodIP
	service, err := s.client.CoreV1().Services(s.ns).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	web := service.Spec.ClusterIP
	zone := s.ns + ".svc.cluster.local"

	for _, c := range []struct{ name, qtype, want string }{
		{"web", "a", web}, // by the search list of the pod
		{"web." + zone + ".", "a", web},
		{"kubernetes.default.svc.cluster.local.", "a", "10.43.0.1"},
		{"headless." + zone + ".", "a", server},
		{"first.headless." + zone + ".", "a", server},
		{strings.ReplaceAll(server, ".", "-") + "." + s.ns + ".pod.cluster.local.", "a", server},
		{"_http._tcp.web." + zone + ".", "srv", "80 web." + zone},
		{reverse(t, web), "ptr", "web." + zone},
		{reverse(t, server), "ptr", "first.headless." + zone},
		{s.node.Name + ".", "a", s.node.Host.Addr.String()},
		{"nothing." + zone + ".", "a", "NXDOMAIN"},
	} {
		t.Run(c.name+" "+c.qtype, func(t *testing.T) {
			sub := *s
			sub.T = t
			sub.untilFromPod(c.name, c.qtype, c.want)
		})
	}
	t.Run("a name outside, and no resolver for it", func(t *testing.T) {
		sub := *s
		sub.T = t
		stop := outsideResolver(t)
		sub.untilFromPod(outsideName, "a", "203.0.113.7")
		stop()
		sub.untilFromPod("other.dnstest.example.", "a", "SERVFAIL")
		sub.untilFromPod("web."+zone+".", "a", web)
	})
	t.Run("from outside of the nodes nothing answers", func(t *testing.T) {
		gateway := podGateway(t, s)
		if _, err := query(t, s.node.Host.Dial, "udp", gateway, "kubernetes.default.svc.cluster.local."); err != nil {
			t.Errorf("the node's own query to %s: %v", gateway, err)
		}
		for _, to := range []string{"10.42.0.0/16", "10.43.0.0/16"} {
			remove, err := lab.Switch.Route(netip.MustParsePrefix(to), s.node.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := remove(); err != nil {
					t.Error(err)
				}
			}()
		}
		// The ways themselves are open: the API server answers by both.
		for _, api := range []string{net.JoinHostPort(gateway, "6443"), "10.43.0.1:443"} {
			conn, err := lab.Switch.Dial(within(t, 5*time.Second), "tcp", api)
			if err != nil {
				t.Errorf("%s can't be reached from outside, so this test would tell nothing: %v", api, err)
				continue
			}
			conn.Close()
		}
		for _, server := range []string{s.node.Host.Addr.String(), gateway, "10.43.0.10"} {
			for _, network := range []string{"udp", "tcp"} {
				if reply, err := query(t, lab.Switch.Dial, network, server, "kubernetes.default.svc.cluster.local."); err == nil {
					t.Errorf("%s over %s: %v", server, network, reply)
				}
			}
		}
	})
	t.Run("the endpoints are the node's own", func(t *testing.T) {
		list, err := s.client.DiscoveryV1().EndpointSlices("kube-system").List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kube-dns"})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, slice := range list.Items {
			for _, e := range slice.Endpoints {
				hinted := e.Hints != nil && len(e.Hints.ForNodes) == 1 && e.Hints.ForNodes[0].Name == s.node.Name
				found = found || hinted && e.NodeName != nil && *e.NodeName == s.node.Name && slices.Equal(e.Addresses, []string{podGateway(t, s)})
			}
		}
		if !found {
			t.Errorf("the EndpointSlices are %+v", list.Items)
		}
	})
	t.Run("coredns-custom", func(t *testing.T) {
		sub := *s
		sub.T = t
		sub.custom(zone, web)
	})
}

// reverse is the name to ask for the name of an address.
func reverse(t *testing.T, addr string) string {
	t.Helper()
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// podGateway is the node's address on the pod network.
func podGateway(t *testing.T, s *scene) string {
	t.Helper()
	node, err := s.client.CoreV1().Nodes().Get(t.Context(), s.node.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	prefix, err := netip.ParsePrefix(node.Spec.PodCIDR)
	if err != nil {
		t.Fatal(err)
	}
	return prefix.Addr().Next().String()
}

// custom changes coredns-custom: a good one, a broken one, a good one, none.
func (s *scene) custom(zone, web string) {
	s.Helper()
	maps := s.client.CoreV1().ConfigMaps("kube-system")
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "coredns-custom"}, Data: map[string]string{
		"alias.override": "rewrite name alias.dnstest.example web." + zone,
	}}
	m, err := maps.Create(s.Context(), m, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	removed := false
	defer func() {
		if !removed {
			_ = maps.Delete(context.Background(), "coredns-custom", metav1.DeleteOptions{})
		}
	}()
	s.untilFromPod("alias.dnstest.example.", "a", web)

	m.Data["bad.server"] = "dnstest.example {\n bind 0.0.0.0\n}"
	if m, err = maps.Update(s.Context(), m, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	_, err = eventually(within(s.T, 30*time.Second), func(ctx context.Context) (any, error) {
		events, err := s.client.CoreV1().Events("kube-system").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=coredns-custom"})
		if err != nil {
			return nil, err
		}
		for _, e := range events.Items {
			if e.Type == corev1.EventTypeWarning && strings.Contains(e.Message, "bind is not allowed here") {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("no Event tells of it: %+v", events.Items)
	})
	if err != nil {
		s.Error(err)
	}
	s.untilFromPod("alias.dnstest.example.", "a", web)

	m.Data = map[string]string{"office.override": "hosts {\n 203.0.113.55 printer.dnstest.example\n fallthrough\n}"}
	if _, err = maps.Update(s.Context(), m, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.untilFromPod("printer.dnstest.example.", "a", "203.0.113.55")
	if err := maps.Delete(s.Context(), "coredns-custom", metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	removed = true
	s.untilFromPod("printer.dnstest.example.", "a", "SERVFAIL")
}
