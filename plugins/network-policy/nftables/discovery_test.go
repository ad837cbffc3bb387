package nftables

import (
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRoutedDiscovery sends ICMPv6 of the types that neighbour discovery and multicast listeners
// use to a closed pod from beyond a router, where they have no business.
func TestRoutedDiscovery(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "")
	web := n.newPod(12, "a", "web", "app=web")
	n.run()
	kinds := []byte{130, 131, 132, 133, 134, 135, 136, 137, 143}
	hops := []int{255, 64, 2}
	expect(t, probe{n.elsewhere, "", "tcp:" + "[fd42::12]:80", true})
	for _, kind := range kinds {
		if !sendsICMP(t, n.elsewhere, web, kind, 2) {
			t.Fatalf("type %d does not arrive without a policy, so this test says nothing", kind)
		}
	}
	n.api.put(policyObject("a", "deny", denyIngress))
	expect(t, probe{client.place, "", "tcp:[fd42::12]:80", false}, probe{n.elsewhere, "", "tcp:[fd42::12]:80", false})
	for _, kind := range kinds {
		for _, limit := range hops {
			if sendsICMP(t, n.elsewhere, web, kind, limit) {
				t.Errorf("type %d with a hop limit of %d arrives in spite of the policy", kind, limit)
			}
		}
	}
}

// sendsICMP sends one ICMPv6 message with a mark and says whether it arrives.
func sendsICMP(t *testing.T, from *place, to *testPod, kind byte, hops int) (arrived bool) {
	t.Helper()
	const mark = "k3m-mark"
	var listener int
	to.do(func() {
		var err error
		listener, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		must(t, err)
		timeout := unix.NsecToTimeval(probeTime.Nanoseconds())
		must(t, unix.SetsockoptTimeval(listener, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	})
	defer func() { _ = unix.Close(listener) }()
	from.do(func() {
		raw, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		must(t, err)
		defer func() { _ = unix.Close(raw) }()
		must(t, unix.SetsockoptInt(raw, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops))
		message := append(make([]byte, 8), mark...)
		message[0] = kind
		must(t, unix.Sendto(raw, message, 0, &unix.SockaddrInet6{Addr: to.addrs[1].As16()}))
	})
	buffer := make([]byte, 256)
	for deadline := time.Now().Add(probeTime); time.Now().Before(deadline); {
		got, _, err := unix.Recvfrom(listener, buffer, 0)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN || os.IsTimeout(err):
			return false
		case err != nil:
			t.Fatal(err)
		case got == 8+len(mark) && buffer[0] == kind && string(buffer[8:got]) == mark:
			return true
		}
	}
	return false
}
