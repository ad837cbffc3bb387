package ports

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// listen opens a real socket until the test ends.
func listen(t *testing.T, network, address string) (port int, closer io.Closer) {
	t.Helper()
	config := net.ListenConfig{}
	if strings.HasPrefix(network, "udp") {
		conn, err := config.ListenPacket(t.Context(), network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn.LocalAddr().(*net.UDPAddr).Port, conn
	}
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port, l
}

func TestWhoHoldsAPort(t *testing.T) {
	host(t)
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	us := fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(comm)), os.Getpid())
	for name, tc := range map[string]struct {
		network, address string
		holder           string
	}{
		"all addresses":              {"tcp", ":0", us},
		"all addresses of IPv4":      {"tcp4", "0.0.0.0:0", us},
		"all addresses of IPv6":      {"tcp6", "[::]:0", us},
		"the node's address":         {"tcp", nodeIP + ":0", us},
		"a loopback address":         {"tcp", "127.0.0.1:0", ""},
		"IPv6's loopback address":    {"tcp", "[::1]:0", ""},
		"the pods' gateway":          {"tcp", gateway + ":0", ""},
		"all addresses, UDP":         {"udp", ":0", us},
		"the node's address, UDP":    {"udp", nodeIP + ":0", us},
		"the pods' gateway, UDP":     {"udp", gateway + ":0", ""},
		"a loopback address, UDP":    {"udp", "127.0.0.1:0", ""},
		"all addresses of IPv4, UDP": {"udp4", "0.0.0.0:0", us},
	} {
		t.Run(name, func(t *testing.T) {
			number, _ := listen(t, tc.network, tc.address)
			protocol := strings.ToUpper(tc.network[:3])
			other := map[string]string{"TCP": "UDP", "UDP": "TCP"}[protocol]
			var got []nodestatus.PortHolder
			w := &watcher{
				Options: Options{NodeIPs: []netip.Addr{netip.MustParseAddr(nodeIP)}, proc: "/proc", netDir: "/proc/self/net",
					Report: func(p []nodestatus.PortHolder) { got = p }},
				names: map[uint64]string{},
			}
			again := w.look([]port{{uint16(number), protocol}, {uint16(number), other}})
			want := []nodestatus.PortHolder{{Protocol: protocol, Port: uint16(number), Holder: tc.holder}, {Protocol: other, Port: uint16(number)}}
			if fmt.Sprint(got) != fmt.Sprint(want) || again != (tc.holder != "") {
				t.Errorf("got %v, %v; want %v", got, again, want)
			}
		})
	}
}

// A connection's own end has the same port as the listener; it must not look like one
// when the listener is gone.
func TestConnectionsHoldNothing(t *testing.T) {
	host(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", nodeIP+":0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	l.Close()
	sockets, err := listening("/proc/self/net", "TCP")
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{Options: Options{NodeIPs: []netip.Addr{netip.MustParseAddr(nodeIP)}}}
	if s, held := w.holding(sockets, uint16(l.Addr().(*net.TCPAddr).Port)); held {
		t.Errorf("%v holds the port", s)
	}
}

// vxlan's socket belongs to no process.
func TestTheKernelHoldsAPort(t *testing.T) {
	host(t)
	link := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: 7, Port: 8472}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	var got []nodestatus.PortHolder
	w := &watcher{Options: Options{proc: "/proc", netDir: "/proc/self/net", Report: func(p []nodestatus.PortHolder) { got = p }}}
	w.look([]port{{8472, "UDP"}})
	if len(got) != 1 || got[0].Holder != unnamed {
		t.Errorf("got %v", got)
	}
}

func service(name string, kind corev1.ServiceType, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{Type: kind, Ports: ports}}
}

func TestWatch(t *testing.T) {
	host(t)
	number, closer := listen(t, "tcp", ":0")
	client := fake.NewClientset()
	reports := make(chan []nodestatus.PortHolder, 10)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, Options{Client: client, NodeIPs: []netip.Addr{netip.MustParseAddr(nodeIP)},
			Report: func(p []nodestatus.PortHolder) { reports <- p }})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	next := func() []nodestatus.PortHolder {
		t.Helper()
		select {
		case p := <-reports:
			return p
		case <-time.After(20 * time.Second):
			t.Fatal("no report came")
			return nil
		}
	}
	if got := next(); len(got) != 0 {
		t.Errorf("without Services: %v", got)
	}
	web := service("web", corev1.ServiceTypeLoadBalancer,
		corev1.ServicePort{Port: int32(number), Protocol: corev1.ProtocolTCP}, corev1.ServicePort{Port: 7, Protocol: corev1.ProtocolSCTP})
	services := client.CoreV1().Services("default")
	if _, err := services.Create(ctx, web, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got := next()
	if len(got) != 2 || got[0] != (nodestatus.PortHolder{Protocol: "SCTP", Port: 7}) || got[1].Port != uint16(number) || got[1].Holder == "" {
		t.Errorf("a held port: %v", got)
	}
	closer.Close()
	if got := next(); len(got) != 2 || got[1].Holder != "" {
		t.Errorf("after its holder closed it: %v", got)
	}
	if err := services.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := next(); len(got) != 0 {
		t.Errorf("after the Service went: %v", got)
	}
}

func TestUnreadableSocketsSayNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tcp"), []byte("header\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &watcher{Options: Options{netDir: dir, Logger: discard(), Report: func(p []nodestatus.PortHolder) { t.Errorf("reported %v", p) }}}
	if !w.look([]port{{80, "TCP"}}) {
		t.Error("it will not look again")
	}
}

// A Service with ports in plenty leaves older ones theirs, and what is told stays bounded.
func TestOldServicesComeFirst(t *testing.T) {
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	keep := func(name string, age time.Duration, ports ...corev1.ServicePort) any {
		s := service(name, corev1.ServiceTypeLoadBalancer, ports...)
		s.CreationTimestamp = metav1.NewTime(born.Add(-age))
		kept, err := portsAlone(s)
		if err != nil {
			t.Fatal(err)
		}
		return kept
	}
	var many []corev1.ServicePort
	for n := range 5000 {
		many = append(many, corev1.ServicePort{Port: int32(n + 1), Protocol: corev1.ProtocolTCP})
	}
	old := keep("web", 2*time.Hour, corev1.ServicePort{Port: 65000, Protocol: corev1.ProtocolUDP})
	greedy := keep("a-greedy", time.Hour, many...)
	young := keep("young", 0, corev1.ServicePort{Port: 64000, Protocol: corev1.ProtocolTCP}, corev1.ServicePort{Port: 1, Protocol: corev1.ProtocolTCP})
	got := wanted([]any{young, greedy, old})
	if len(got) != maxPorts || got[0] != (port{1, "TCP"}) || got[maxPorts-1] != (port{65000, "UDP"}) {
		t.Errorf("%d ports, from %v to %v", len(got), got[0], got[len(got)-1])
	}
	if slices.Contains(got, port{64000, "TCP"}) {
		t.Error("a port of the youngest Service is there")
	}
}
