package render_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// names is a DNS server that knows these.
func names(t testing.TB, known map[string]string) netip.AddrPort {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		reply := new(dns.Msg).SetReply(r)
		if address, ok := known[r.Question[0].Name]; ok && r.Question[0].Qtype == dns.TypeA {
			record, _ := dns.NewRR(fmt.Sprintf("%s 5 IN A %s", r.Question[0].Name, address))
			reply.Answer = append(reply.Answer, record)
		}
		_ = w.WriteMsg(reply)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return netip.MustParseAddrPort(conn.LocalAddr().String())
}

// A Service of type ExternalName is looked up when it is asked for.
func TestExternalName(t *testing.T) {
	s := newSite(t)
	s.config = map[string]string{"disable-svc-external-name": "false"}
	s.resolver = []netip.AddrPort{names(t, map[string]string{"outside.example.": "127.0.0.1"})}
	port := int32(serve(t, echo("outside")).Port())
	for name, target := range map[string]string{"outside": "outside.example", "gone": "gone.example", "node": "localhost", "address": "127.0.0.1"} {
		s.services[name] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeExternalName, ExternalName: target, Ports: []corev1.ServicePort{{Name: "web", Port: port}}}}
		s.ingress(name, nil, "^ "+name+".example/ "+name)
	}
	s.ingress("rewritten", said{"rewrite-target": "/new/$1"}, "~ rewritten.example/old/(.*) outside")
	s.start()
	for host, want := range map[string]string{"outside": "outside", "gone": "502", "node": "503", "address": "503"} {
		if got := s.get("http://" + host + ".example/x").from(); got != want {
			t.Errorf("%s: answered by %s, want %s", host, got, want)
		}
	}
	for url, want := range map[string]string{"http://outside.example/a%2Fb?c": "/a%2Fb?c", "http://rewritten.example/old/x?y": "/new/x?y"} {
		if got := s.get(url).path(); got != want {
			t.Errorf("%s: the backend saw %s, want %s", url, got, want)
		}
	}
}

// A Service's own address takes the place of its endpoints where an annotation says so.
func TestServiceUpstream(t *testing.T) {
	s := newSite(t)
	s.backend("web")
	cluster := serve(t, echo("cluster"))
	s.services["web"].Spec.ClusterIP = cluster.Addr().String()
	s.services["web"].Spec.Ports[0].Port = int32(cluster.Port())
	s.ingress("endpoints", nil, "^ endpoints.example/ web")
	s.ingress("service", said{"service-upstream": "true"}, "^ service.example/ web")
	s.start()
	for host, want := range map[string]string{"endpoints": "web", "service": "cluster"} {
		if got := s.get("http://" + host + ".example/").from(); got != want {
			t.Errorf("%s: answered by %s, want %s", host, got, want)
		}
	}
}
