package nftables

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/sdk/client"
)

const denyIngress = "{podSelector: {matchLabels: {app: web}}}"

// TestNewPods starts pods whose status nobody knows yet.
func TestNewPods(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": "", "b": ""})
	client := n.newPod(11, "a", "client", "app=client")
	canary := n.newPod(12, "a", "canary", "app=web") // tells when policies are in place
	policy := policyObject("a", "deny", denyIngress)
	n.run()

	t.Run("are open while there is no policy", func(t *testing.T) {
		early := n.plug(30)
		expect(t, probe{client.place, "", "tcp:10.42.0.30:80", true})
		n.unplug(early)
	})
	n.api.put(policy)
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false})

	t.Run("get what all that they can be would get", func(t *testing.T) {
		// The API has a pod that no policy selects; its address is handed out: nothing but
		// that record says so.
		n.api.put(podObject("b", "free", "app=web", nodeName))
		n.plug(31)
		expect(t, probe{client.place, "", "tcp:10.42.0.31:80", true})
	})
	t.Run("are isolated at once when a policy selects them", func(t *testing.T) {
		n.api.put(withAddrs(podObject("b", "free", "app=web", nodeName), netip.MustParseAddr("10.42.0.31"), netip.MustParseAddr("fd42::31")))
		n.api.put(policyObject("a", "from-client", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}"))
		db := podObject("a", "db", "app=db", nodeName)
		n.api.put(db)
		place := n.plug(32)
		expect(t, probe{client.place, "", "tcp:10.42.0.32:80", true}, probe{canary.place, "", "tcp:10.42.0.32:80", false})
		n.api.put(withAddrs(db, place.addrs...))
	})
	web := podObject("a", "web", "app=web", nodeName)
	t.Run("are closed as long as they can be one or the other", func(t *testing.T) {
		db := podObject("a", "db2", "app=db", nodeName)
		n.api.put(web, db)
		place := n.plug(33)
		// Another pod is told of meanwhile, so that all of this has been looked at.
		n.newPod(34, "b", "other", "")
		expect(t, probe{client.place, "", "tcp:10.42.0.34:80", true}, probe{client.place, "", "tcp:10.42.0.33:80", false},
			probe{place, "", "tcp:10.42.0.34:80", true}) // neither is isolated on the way out
		n.api.put(withAddrs(db, place.addrs...))
		expect(t, probe{client.place, "", "tcp:10.42.0.33:80", true}, probe{canary.place, "", "tcp:10.42.0.33:80", false})
	})
	t.Run("are closed when nobody knows anything of them", func(t *testing.T) {
		n.api.remove(web)
		n.newPod(35, "b", "last", "") // tells when that has arrived
		expect(t, probe{client.place, "", "tcp:10.42.0.35:80", true})
		addr := n.plug(36)
		expect(t, probe{client.place, "", "tcp:10.42.0.36:80", false},
			probe{addr, "", "tcp:10.42.0.11:80", false})
	})
	t.Run("are open again when there is no policy", func(t *testing.T) {
		n.api.remove(policy, &networkingv1.NetworkPolicy{ObjectMeta: policyObject("a", "from-client", denyIngress).ObjectMeta})
		expect(t, probe{client.place, "", "tcp:10.42.0.36:80", true})
	})
}

// TestAddressReuse gives a pod's address to another one.
func TestAddressReuse(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": "", "b": ""})
	client := n.newPod(11, "a", "client", "app=client")
	n.newPod(12, "a", "db", "app=db")
	n.api.put(policyObject("a", "db", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}"))
	n.run()
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", true}, probe{n.self, "", "tcp:10.42.0.12:80", true})

	// The client's sandbox goes; the API has not heard of it, and the address is another's.
	n.unplug(client.place)
	n.api.put(podObject("b", "new", "", nodeName))
	second := n.plug(11)
	n.newPod(13, "b", "open", "")
	expect(t, probe{second, "", "tcp:10.42.0.13:80", true})
	// The kubelet tells: the client has ended, the new pod has the address.
	n.api.remove(client.pod)
	n.api.put(withAddrs(podObject("b", "new", "", nodeName), second.addrs...))
	expect(t, probe{second, "", "tcp:10.42.0.12:80", false}, probe{second, "", "tcp:10.42.0.13:80", true})
}

// TestKill kills the component: rules hold, new pods stay closed, the next start takes over.
func TestKill(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "app=client")
	other := n.newPod(12, "a", "other", "app=other")
	n.newPod(13, "a", "web", "app=web")
	n.api.put(policyObject("a", "web", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}"))
	c := n.run()
	held := []probe{{client.place, "", "tcp:10.42.0.13:80", true}, {other.place, "", "tcp:10.42.0.13:80", false}, {other.place, "", "tcp:10.42.0.11:80", true}}
	expect(t, held...)
	open := keepOpen(t, client.place, "10.42.0.13:81")
	c.kill()
	expect(t, held...)
	late := n.newPod(14, "a", "late", "app=client")
	expect(t, append(held, probe{late.place, "", "tcp:10.42.0.13:80", false}, probe{other.place, "", "tcp:10.42.0.14:80", false})...)

	// While the next one takes over, not one connection is let in that must not be, or lost.
	stop, leaked := make(chan struct{}), make(chan int)
	go func() {
		count := 0
		for {
			select {
			case <-stop:
				leaked <- count
				return
			default:
				if other.reaches("", "tcp:10.42.0.13:80") {
					count++
				}
			}
		}
	}()
	n.run()
	expect(t, append(held, probe{late.place, "", "tcp:10.42.0.13:80", true}, probe{other.place, "", "tcp:10.42.0.14:80", true})...)
	close(stop)
	if count := <-leaked; count > 0 {
		t.Errorf("%d connections were let in while the rules changed hands", count)
	}
	open.answers(t)
}

// connection is one that stays open.
type connection struct{ net.Conn }

func keepOpen(t *testing.T, from *place, to string) connection {
	t.Helper()
	var conn net.Conn
	from.do(func() {
		var err error
		conn, err = (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", to)
		must(t, err)
	})
	t.Cleanup(func() { _ = conn.Close() })
	c := connection{conn}
	c.answers(t)
	return c
}

func (c connection) answers(t *testing.T) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	if _, err := c.Write([]byte("ask")); err != nil {
		t.Fatalf("an established connection: %v", err)
	}
	if _, err := c.Read(make([]byte, 3)); err != nil {
		t.Fatalf("an established connection: %v", err)
	}
}

// TestEstablished makes a policy that would not let in a connection that is there.
func TestEstablished(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "app=client")
	n.newPod(12, "a", "web", "app=web")
	n.run()
	open := keepOpen(t, client.place, "10.42.0.12:80")
	n.api.put(policyObject("a", "deny", denyIngress))
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false})
	open.answers(t)
}

// TestEstablishedByAnother gives a pod's address to another one that sends what would belong to the
// first one's connection.
func TestEstablishedByAnother(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "app=client")
	web := n.newPod(12, "a", "web", "app=web")
	n.api.put(policyObject("a", "web", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}"))
	n.run()
	// UDP: an answer makes it established, for two minutes.
	const port = 41000
	reaches := func(from *place) (reached bool) {
		from.do(func() {
			conn, err := net.DialUDP("udp", &net.UDPAddr{IP: from.addrs[0].AsSlice(), Port: port}, &net.UDPAddr{IP: web.addrs[0].AsSlice(), Port: 53})
			must(t, err)
			defer func() { _ = conn.Close() }()
			must(t, conn.SetDeadline(time.Now().Add(probeTime)))
			_, err = conn.Write([]byte("ask"))
			if err == nil {
				_, err = conn.Read(make([]byte, 3))
			}
			reached = err == nil
		})
		return reached
	}
	for deadline := time.Now().Add(10 * time.Second); !reaches(client.place); {
		if time.Now().After(deadline) {
			t.Fatal("the client does not reach what it may")
		}
	}
	n.unplug(client.place)
	n.api.remove(client.pod)
	n.newPod(13, "a", "witness", "app=client") // what was before is done when it is known
	expect(t, probe{n.elsewhere, "", "tcp:10.42.0.13:80", true})
	second := n.newPod(11, "a", "second", "app=other")
	n.newPod(14, "a", "open", "")
	expect(t, probe{second.place, "", "tcp:10.42.0.14:80", true})
	if reaches(second.place) {
		t.Error("a pod goes on with the connection of the one that had its address")
	}
}

// TestFlushedRuleset takes the rules away, as `systemctl restart nftables` does.
func TestFlushedRuleset(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "app=client")
	n.newPod(12, "a", "web", "app=web")
	n.api.put(policyObject("a", "deny", denyIngress))
	c := n.run()
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false})
	for _, command := range []string{"flush ruleset", "flush table inet " + tableName, "delete table inet " + tableName} {
		out, err := nft(command)
		if err != nil {
			t.Fatalf("nft %s: %v: %s", command, err, out)
		}
		expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false}, probe{client.place, "", "tcp:10.42.0.12:81", false})
	}
	c.stop()
}

// TestWithoutRecords runs where the records of addresses can't be read.
func TestWithoutRecords(t *testing.T) {
	n := newNode(t)
	n.namespaces(map[string]string{"a": ""})
	client := n.newPod(11, "a", "client", "")
	canary := n.newPod(12, "a", "canary", "app=web")
	n.api.put(policyObject("a", "deny", denyIngress))
	must(t, os.Chmod(filepath.Dir(n.records), 0o700))
	c := n.run()
	expect(t, probe{client.place, "", "tcp:10.42.0.12:80", false}, probe{canary.place, "", "tcp:10.42.0.11:80", true})
	free := podObject("a", "free", "", nodeName)
	n.api.put(free)
	place := n.plug(13)
	n.newPod(14, "a", "other", "")
	expect(t, probe{client.place, "", "tcp:10.42.0.14:80", true}, probe{client.place, "", "tcp:10.42.0.13:80", false})
	n.api.put(withAddrs(free, place.addrs...))
	expect(t, probe{client.place, "", "tcp:10.42.0.13:80", true})
	if !strings.Contains(c.log.String(), "the records of pod addresses can't be read") {
		t.Error("the log does not say so")
	}
}

// TestUnseenBridge takes from the kernel what shows it the packets between pods of a node.
func TestUnseenBridge(t *testing.T) {
	n := newNode(t)
	must(t, os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0o644))
	c := n.begin()
	for deadline := time.After(10 * time.Second); ; {
		select {
		case r := <-c.reports:
			if d, ok := r.(client.Degraded); ok {
				if !strings.Contains(d.Reason, "modprobe br_netfilter") {
					t.Errorf("degraded: %s", d.Reason)
				}
				return
			}
		case <-deadline:
			t.Fatal("it is not degraded")
		}
	}
}
