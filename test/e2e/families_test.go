package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

const twoFamilies = `
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: b, image: BUSYBOX, command: [sleep, "3600"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: asker, labels: {app: asker}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: e, image: ECHO}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, ipFamilyPolicy: PreferDualStack, selector: {app: server}, ports: [{port: 18080, targetPort: 8080}]}
`

const closed = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: server}}, ingress: []}
`

// dualStack looks at what a cluster of some families has to do in each: pods, Services, load
// balancers, DNS and network policies. The slices hold the beginnings of the addresses, or the
// addresses, of each family.
func dualStack(s *scene, pods, services, balancers []string) {
	server, asker := s.pod("server"), s.pod("asker")
	s.pod("client")
	s.Run("pods", func(t *testing.T) {
		s := s.as(t)
		ips := podIPs(server)
		checkFamilies(t, "the pod", ips, pods)
		for _, ip := range ips {
			target := "http://" + net.JoinHostPort(ip, "8080") + "/"
			if body := s.get(s.node.Host.HTTP(), target); body != "server" {
				t.Errorf("%s answers %q", target, body)
			}
			if !s.reachable(asker, target) {
				t.Errorf("a pod does not reach %s", target)
			}
		}
	})
	s.Run("services", func(t *testing.T) {
		s := s.as(t)
		web := s.service("web")
		checkFamilies(t, "the Service", web.Spec.ClusterIPs, services)
		for _, ip := range web.Spec.ClusterIPs {
			s.becomes(true, asker, "http://"+net.JoinHostPort(ip, "18080")+"/")
		}
		s.ingress("web", strings.Join(balancers, " "))
		for _, ip := range balancers {
			if slices.Contains(s.node.Host.NodeIPs, netip.MustParseAddr(ip)) {
				s.get(lab.Switch.HTTP(), "http://"+net.JoinHostPort(ip, "18080")+"/")
			}
		}
	})
	s.Run("DNS", func(t *testing.T) {
		s := s.as(t)
		waitComponent(t, within(t, pluginBackLimit), s.node, "dns.coredns", harness.Component.Ready)
		web := s.service("web")
		dns, err := s.client.CoreV1().Services("kube-system").Get(t.Context(), "kube-dns", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		checkFamilies(t, "kube-dns", dns.Spec.ClusterIPs, services)
		resolvConf := s.kubectl("exec", "client", "--", "cat", "/etc/resolv.conf")
		for i, ip := range dns.Spec.ClusterIPs {
			if !strings.Contains(resolvConf, "nameserver "+ip+"\n") {
				t.Errorf("resolv.conf of pods lacks %s: %s", ip, resolvConf)
			}
			qtype := "A"
			if strings.Contains(web.Spec.ClusterIPs[i], ":") {
				qtype = "AAAA"
			}
			_, err := eventually(within(t, 30*time.Second), func(ctx context.Context) (any, error) {
				out, _ := s.node.Kubectl(ctx, "-n", s.ns, "exec", "client", "--", "nslookup", "-type="+qtype, "web."+s.ns+".svc.cluster.local", ip)
				if !strings.Contains(out, web.Spec.ClusterIPs[i]) {
					return nil, fmt.Errorf("%s says %q", ip, out)
				}
				return nil, nil
			})
			if err != nil {
				t.Errorf("%s of the Service: %v", qtype, err)
			}
		}
	})
	s.Run("the API from a pod", func(t *testing.T) {
		s := s.as(t)
		at := net.JoinHostPort(asker.Status.PodIP, "8080")
		// The pod's account may do nothing; that it is told so by name is the answer.
		body, err := harness.Get(within(t, 15*time.Second), s.node.Host.HTTP(), "http://"+at+"/api?path="+url.QueryEscape("/version"))
		if err != nil || !strings.Contains(body, "gitVersion") {
			t.Errorf("%v: %s", err, body)
		}
	})
	s.Run("network policies", func(t *testing.T) {
		s := s.as(t)
		s.apply(closed)
		for _, ip := range podIPs(server) {
			s.becomes(false, asker, "http://"+net.JoinHostPort(ip, "8080")+"/")
		}
		s.kubectl("delete", "networkpolicy", "closed")
		for _, ip := range podIPs(server) {
			s.becomes(true, asker, "http://"+net.JoinHostPort(ip, "8080")+"/")
		}
	})
}

func podIPs(pod *corev1.Pod) []string {
	var ips []string
	for _, ip := range pod.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	return ips
}

// checkFamilies sees that there is one address of each range, in this order.
func checkFamilies(t *testing.T, what string, got, prefixes []string) {
	t.Helper()
	var errs []error
	if len(got) != len(prefixes) {
		errs = append(errs, errors.New("not one address of each range"))
	}
	for i := range min(len(got), len(prefixes)) {
		if !strings.HasPrefix(got[i], prefixes[i]) {
			errs = append(errs, fmt.Errorf("%s is not of %s", got[i], prefixes[i]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%s has %v, want %v: %v", what, got, prefixes, err)
	}
}

// TestIPv6Only has a cluster without any IPv4 address of its own, on a host that has both.
func TestIPv6Only(t *testing.T) {
	host := lab.NewHost(t, "six")
	preload(t, host)
	host.NodeIPs = []netip.Addr{host.Addr6}
	const advertised = "fd42:198:18::ad"
	if out, err := host.Command(within(t, 10*time.Second), "ip", "address", "add", advertised+"/64", "dev", "eth0", "nodad").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node := host.Serve(t, "--cluster-cidr=fd42:62::/56", "--service-cidr=fd42:63::/112", "--bind-address=::", "--advertise-address="+advertised)
	client, err := node.WaitReady(within(t, 90*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: namespace(t, client)}
	s.apply(twoFamilies)
	dualStack(s, []string{"fd42:62:"}, []string{"fd42:63:"}, []string{host.Addr6.String()})
	t.Run("advertised address", func(t *testing.T) {
		s := s.as(t)
		if got := s.kubectl("get", "endpointslices", "-n", "default", "kubernetes", "-o", "jsonpath={.endpoints[*].addresses[*]}"); got != advertised {
			t.Errorf("pods are led to the API at %q", got)
		}
	})
}
