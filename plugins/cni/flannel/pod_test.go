package flannel

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// pod is a network namespace that the CNI executables have joined to a host's network,
// as a runtime does it.
type pod struct {
	host      *host
	namespace string
	addresses []string
	remove    func()
}

// newPod adds a pod by the conflist that the component wrote.
func (h *host) newPod(name string) *pod { return h.newPodWith(name, nil) }

// newPodWith adds a pod with the capability arguments that a runtime gives: host ports,
// bandwidth.
func (h *host) newPodWith(name string, arguments map[string]any) *pod {
	t := h.t
	t.Helper()
	p := &pod{host: h}
	var release func()
	p.namespace, release = holdNamespace(t)

	list, err := libcni.ConfListFromFile(filepath.Join(h.facts.Paths.CNIConfDir, conflistName))
	must(t, err)
	cni := libcni.NewCNIConfigWithCacheDir([]string{h.facts.Paths.CNIBinDir}, filepath.Join(h.dir, "cache"), nil)
	runtime := &libcni.RuntimeConf{ContainerID: h.name + "-" + name, NetNS: p.namespace, IfName: "eth0", CapabilityArgs: arguments}
	h.do(func() {
		result, err := cni.AddNetworkList(context.Background(), list, runtime)
		if err != nil {
			t.Errorf("add pod %s on %s: %v", name, h.name, err)
			return
		}
		have, err := types100.NewResultFromResult(result)
		if err != nil {
			t.Error(err)
			return
		}
		for _, ip := range have.IPs {
			p.addresses = append(p.addresses, ip.Address.IP.String())
		}
	})
	removed := false
	p.remove = func() {
		if removed {
			return
		}
		removed = true
		h.do(func() {
			if err := cni.DelNetworkList(context.Background(), list, runtime); err != nil {
				t.Errorf("remove pod %s on %s: %v", name, h.name, err)
			}
		})
		release()
	}
	t.Cleanup(p.remove)
	if t.Failed() {
		t.FailNow()
	}
	return p
}

// mtu is that of the pod's interface.
func (p *pod) mtu() (mtu int) {
	inNamespace(p.host.t, p.namespace, func() {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			p.host.t.Error(err)
			return
		}
		mtu = link.Attrs().MTU
	})
	return mtu
}

// serveEcho answers each line that comes in on TCP port with the client's address, in
// the namespace of path.
func serveEcho(t *testing.T, path string, port int) {
	t.Helper()
	var listener net.Listener
	inNamespace(t, path, func() {
		var err error
		if listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf(":%d", port)); err != nil {
			t.Error(err)
		}
	})
	if listener == nil {
		t.FailNow()
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					from, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
					fmt.Fprintln(conn, from)
				}
			}()
		}
	}()
}

// ask connects from a namespace to an echo server, with a new connection, and returns
// the address that it saw.
func ask(t *testing.T, path, address string) (seen string, err error) {
	inNamespace(t, path, func() { seen, err = askHere(address) })
	return seen, err
}

func askHere(address string) (string, error) {
	conn, err := dial(address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return askOver(conn)
}

func dial(address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	return dialer.DialContext(context.Background(), "tcp", address)
}

func askOver(conn net.Conn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := fmt.Fprintln(conn, "who am I"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// expectReach fails unless address answers, and sees the asker as want.
func expectReach(t *testing.T, path, address, want string) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		seen, err := ask(t, path, address)
		if last = err; err != nil {
			continue
		}
		if seen != want {
			t.Errorf("%s saw the connection come from %s, want %s", address, seen, want)
		}
		return
	}
	t.Errorf("%s does not answer: %v", address, last)
}

// traffic asks all the time until its stop is called, both over one connection and each
// time over a new one, and returns how often and what failed.
func traffic(t *testing.T, path string, addresses ...string) (stop func() (int, []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	type result struct {
		asked  int
		failed []error
	}
	results := make(chan result)
	for _, address := range addresses {
		go inNamespace(t, path, func() {
			var r result
			conn, err := dial(address)
			if err != nil {
				results <- result{failed: []error{err}}
				return
			}
			defer conn.Close()
			for ; ctx.Err() == nil; r.asked++ {
				if _, err := askHere(address); err != nil {
					r.failed = append(r.failed, fmt.Errorf("new connection to %s: %w", address, err))
				}
				if _, err := askOver(conn); err != nil {
					r.failed = append(r.failed, fmt.Errorf("old connection to %s: %w", address, err))
					break
				}
				time.Sleep(2 * time.Millisecond)
			}
			results <- r
		})
	}
	return func() (asked int, failed []error) {
		cancel()
		for range addresses {
			r := <-results
			asked, failed = asked+r.asked, append(failed, r.failed...)
		}
		return asked, failed
	}
}
