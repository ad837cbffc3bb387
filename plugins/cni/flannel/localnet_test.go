package flannel

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/sdk"
)

// A pod sends packets for 127.0.0.1 to its node, where a service listens there. With
// iptables the kubelet has the rule that drops them; it is not part of this test.
func TestPodsDoNotReachTheHostsLoopback(t *testing.T) {
	l := newLAN(t)
	l.api.put("node-2", "10.42.0.0/24")
	h := l.newHost(2, sdk.NFTables, ``)
	c := h.up()
	web := h.newPodWith("web", map[string]any{
		"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
	})
	bad := h.newPod("bad")
	serveEcho(t, web.namespace, 80)
	serveEcho(t, h.namespace, 81)
	if value := h.output("sysctl", "-n", "net.ipv4.conf.cni0.route_localnet"); strings.TrimSpace(value) != "1" {
		t.Fatalf("portmap set route_localnet to %s: this test tests nothing", value)
	}
	inNamespace(t, bad.namespace, func() { sendLoopbackOut(t, "10.42.0.1") })

	refused := func() {
		t.Helper()
		for _, address := range []string{"127.0.0.1:81", "127.9.9.9:81"} {
			if _, err := ask(t, bad.namespace, address); err == nil {
				t.Errorf("a pod reaches %s of its node", address)
			}
		}
	}
	refused()
	// From an address that is the host's own too, so that the answer is lost: what the
	// host took counts.
	if n := h.delivered(t, bad.namespace, "127.0.0.5"); n != 0 {
		t.Errorf("%d packets from 127.0.0.5 got through", n)
	}
	if n := h.delivered(t, bad.namespace, bad.addresses[0]); n != 0 {
		t.Errorf("%d packets from the pod's address got through", n)
	}

	// What has to work: the host's own loopback, its address on the bridge, and host
	// ports, from the outside and by the host's loopback.
	expectReach(t, h.namespace, "127.0.0.1:81", "127.0.0.1")
	expectReach(t, bad.namespace, "10.42.0.1:81", bad.addresses[0])
	expectReach(t, "", "192.168.77.2:8080", "192.168.77.1")
	expectReach(t, h.namespace, "127.0.0.1:8080", "10.42.0.1")
	expectReach(t, bad.namespace, "192.168.77.2:8080", bad.addresses[0])

	before := h.output("nft", "--stateless", "list", "table", "ip", localnetTable)
	for _, command := range []string{"delete table ip " + localnetTable, "flush chain ip " + localnetTable + " input"} {
		h.output("nft", command)
		eventually(t, "the rules are back after: "+command, func() bool {
			out, _ := h.command("nft", "--stateless", "list", "table", "ip", localnetTable).Output()
			return string(out) == before
		})
	}
	refused()

	c.stop(t)
	refused()
	h.cleanup()
	if rules := h.output("nft", "list", "ruleset"); strings.Contains(rules, localnetTable) {
		t.Errorf("left by Cleanup:\n%s", rules)
	}
}

// sendLoopbackOut makes a pod's network namespace send what is for 127.0.0.0/8 to its
// gateway, as a pod with CAP_NET_ADMIN, or with a raw socket, can.
func sendLoopbackOut(t *testing.T, gateway string) {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetDown(lo) // and with it the local routes
	}
	if err == nil {
		_, err = setSysctl("ipv4/conf/eth0/route_localnet", "1", hclog.NewNullLogger())
	}
	var eth0 netlink.Link
	if err == nil {
		eth0, err = netlink.LinkByName("eth0")
	}
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{
			LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gateway), Dst: ipNet(prefixes("127.0.0.0/8")[0]),
		})
	}
	if err != nil {
		t.Errorf("lead the loopback addresses out: %v", err)
	}
}

// delivered counts the datagrams that a socket on the host's 127.0.0.1 receives when a pod
// sends some from an address, with a raw socket.
func (h *host) delivered(t *testing.T, pod, from string) (count int) {
	t.Helper()
	var in int
	h.do(func() {
		var err error
		if in, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Bind(in, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Error(err)
		}
	})
	defer unix.Close(in)
	inNamespace(t, pod, func() {
		out, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(out)
		packet := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0,
			0, 0, 0, 0, 127, 0, 0, 1 /* UDP, no checksum: */, 0x9c, 0x40, 0, 9, 0, 9, 0, 0, 'x'}
		copy(packet[12:], net.ParseIP(from).To4())
		for range 3 {
			if err := unix.Sendto(out, packet, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Errorf("send from %s: %v", from, err)
			}
		}
	})
	time.Sleep(100 * time.Millisecond) // nothing tells that a packet was dropped
	for buffer := make([]byte, 16); ; count++ {
		if _, _, err := unix.Recvfrom(in, buffer, 0); err != nil {
			return count
		}
	}
}
