package nftables

import (
	"encoding/binary"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The headers around a packet that a pod can make.
var wrappings = map[string][]byte{
	"nothing":                         {},
	"a VLAN's tag, number 0":          {0x81, 0, 0, 0},
	"a service tag, number 0":         {0x88, 0xa8, 0, 0},
	"a VLAN's tag within another one": {0x81, 0, 0, 0, 0x81, 0, 0, 0},
}

// TestTaggedFrames has a pod send what the bridge would not show to rules for IP.
func TestTaggedFrames(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "app=client")
	web := n.newPod(12, "a", "web", "app=web")
	open := n.newPod(13, "a", "open", "app=open")
	for name, wrapping := range wrappings {
		if !client.sneaks(t, web, wrapping) {
			t.Fatalf("with %s around it: nothing arrives without the component, so this test says nothing", name)
		}
	}
	n.api.put(policyObject("a", "deny", denyIngress))
	c := n.run()
	closed := func(t *testing.T) {
		t.Helper()
		expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false}, probe{client.place, "", "tcp:10.42.0.13:80", true},
			probe{client.place, "", "tcp:[fd42::13]:80", true})
		if !client.sneaks(t, open, wrappings["nothing"]) {
			t.Error("what no policy forbids does not arrive")
		}
		for name, wrapping := range wrappings {
			if client.sneaks(t, web, wrapping) {
				t.Errorf("a packet with %s around it arrives in spite of the policy", name)
			}
		}
	}
	closed(t)
	c.kill()
	closed(t)
	n.run()
	if out, err := nft("delete table bridge " + tableName); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := nft("list", "chain", "bridge", tableName, chainFrames); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the rules for frames are not made anew")
		}
	}
	closed(t)
}

// sneaks sends a UDP packet to a pod on the same bridge, with a wrapping between the addresses
// of the frame and the packet, and says whether the pod's own socket gets it.
func (p *testPod) sneaks(t *testing.T, to *testPod, wrapping []byte) (arrived bool) {
	t.Helper()
	const port = 4000
	var target net.HardwareAddr
	var socket *net.UDPConn
	to.do(func() {
		eth, err := netlink.LinkByName("eth0")
		must(t, err)
		target = eth.Attrs().HardwareAddr
		socket, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		must(t, err)
	})
	defer func() { _ = socket.Close() }()
	p.do(func() {
		eth, err := netlink.LinkByName("eth0")
		must(t, err)
		raw, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer func() { _ = unix.Close(raw) }()
		frame := append(append([]byte{}, target...), eth.Attrs().HardwareAddr...)
		frame = append(append(append(frame, wrapping...), 0x08, 0x00), udpPacket(p.addrs[0].As4(), to.addrs[0].As4(), port)...)
		must(t, unix.Sendto(raw, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth.Attrs().Index}))
	})
	must(t, socket.SetReadDeadline(time.Now().Add(probeTime)))
	_, _, err := socket.ReadFromUDP(make([]byte, 64))
	if err != nil && !os.IsTimeout(err) {
		t.Fatal(err)
	}
	return err == nil
}

// udpPacket is an IPv4 packet with a UDP one without a checksum.
func udpPacket(from, to [4]byte, port uint16) []byte {
	packet := make([]byte, 20+8+3)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	copy(packet[12:], from[:])
	copy(packet[16:], to[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(packet[20:], port)
	binary.BigEndian.PutUint16(packet[22:], port)
	binary.BigEndian.PutUint16(packet[24:], 8+3)
	copy(packet[28:], "ask")
	return packet
}
