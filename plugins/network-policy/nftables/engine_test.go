package nftables

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/knftables"
)

// world is what the API and the records have, for an engine to be told of.
type world struct {
	namespaces map[string]labels.Set
	pods       map[objectKey]*pod
	policies   map[objectKey]string
	nodes      map[string][]component
	hosts      map[string]*host
	labels     map[string]labels.Set
}

// telling is one random change of the world, told to an engine.
func (w *world) change(r *rand.Rand, e *engine) string {
	pick := func(all ...string) string { return all[r.IntN(len(all))] }
	namespace := pick("a", "b", "kube-system")
	switch r.IntN(14) {
	case 12:
		node := pick(nodeName, otherNode)
		w.hosts[node] = hostOf(nodeObject(node, pick("10.42.0.1", "10.43.0.1"), pick("10.42.0.0/29", "10.42.0.0/28"), "fd42::/64"))
		if r.IntN(3) == 0 {
			delete(w.hosts, node)
		}
		e.setHost(node, w.hosts[node])
		return fmt.Sprint("node ", node, w.hosts[node])
	case 13:
		c := componentObjects()[r.IntN(2)]
		w.labels[c.Name] = c.Spec.Labels
		if r.IntN(3) == 0 {
			delete(w.labels, c.Name)
		}
		e.setLabels(c.Name, w.labels[c.Name])
		return fmt.Sprint("component ", c.Name, w.labels[c.Name])
	case 0:
		if r.IntN(3) == 0 {
			delete(w.namespaces, namespace)
			e.setNamespace(namespace, nil, false)
			return "no namespace " + namespace
		}
		w.namespaces[namespace] = labels.Set{"team": pick("x", "y")}
		e.setNamespace(namespace, w.namespaces[namespace], true)
		return "namespace " + namespace
	case 1, 2, 3:
		key := objectKey{namespace, fmt.Sprint("policy-", r.IntN(4))}
		delete(w.policies, key)
		if r.IntN(3) == 0 {
			e.setPolicy(key, nil)
			return fmt.Sprint("no ", key)
		}
		rule := fmt.Sprintf("[{ports: %s, PEERS: %s}]", pick("[]", "[{port: 80}]", "[{port: web}, {port: 1, endPort: 90}]", "[{protocol: UDP}]"), pick(
			"[]", "[{podSelector: {}}]", "[{podSelector: {matchLabels: {app: p}}}]", "[{namespaceSelector: {matchLabels: {team: x}}}]",
			"[{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]", "[{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]"))
		w.policies[key] = fmt.Sprintf("{podSelector: %s, policyTypes: %s, ingress: %s, egress: %s}",
			pick("{}", "{matchLabels: {app: p}}", "{matchExpressions: [{key: app, operator: NotIn, values: [q]}]}"),
			pick("[Ingress]", "[Egress]", "[Ingress, Egress]"), strings.ReplaceAll(rule, "PEERS", "from"), strings.ReplaceAll(rule, "PEERS", "to"))
		e.setPolicy(key, policyOf(policyObject(key.namespace, key.name, w.policies[key])))
		return fmt.Sprint("policy ", key, w.policies[key])
	case 4:
		node := pick(nodeName, otherNode)
		if r.IntN(3) == 0 {
			delete(w.nodes, node)
		} else {
			w.nodes[node] = componentsOf(componentsObject(node, "10.42.0.1", r.IntN(2) == 0).Status)
		}
		e.setComponents(node, w.nodes[node])
		return "components of " + node
	default:
		key := objectKey{namespace, fmt.Sprint("pod-", r.IntN(6))}
		if r.IntN(4) == 0 {
			delete(w.pods, key)
			e.setPod(key, nil)
			return fmt.Sprint("no ", key)
		}
		var addrs []netip.Addr
		if r.IntN(5) > 0 { // few addresses, so that pods claim the same
			last := byte(r.IntN(12))
			addrs = append(addrs, netip.AddrFrom4([4]byte{10, 42, 0, last}), netip.AddrFrom16([16]byte{0xfd, 0x42, 15: last}))
		}
		o := withAddrs(podObject(key.namespace, key.name, pick("app=p", "app=q", "", "k8s-app=kube-dns"), pick(nodeName, nodeName, otherNode)), addrs...)
		if r.IntN(6) == 0 {
			o.DeletionTimestamp = &o.CreationTimestamp
		}
		w.pods[key] = podOf(o, nodeName)
		e.setPod(key, podOf(o, nodeName))
		return fmt.Sprintf("pod %v %v %v %s", key, o.Labels, addrs, o.Spec.NodeName)
	}
}

// tell tells another engine of all at once.
func (w *world) tell(e *engine) {
	for name, l := range w.namespaces {
		e.setNamespace(name, l, true)
	}
	for key, p := range w.pods {
		fresh := *p
		fresh.addrs, fresh.sets, fresh.policies = nil, nil, nil
		e.setPod(key, &fresh)
	}
	for key, spec := range w.policies {
		e.setPolicy(key, policyOf(policyObject(key.namespace, key.name, spec)))
	}
	for node, all := range w.nodes {
		e.setComponents(node, all)
	}
	for node, h := range w.hosts {
		e.setHost(node, h)
	}
	for id, l := range w.labels {
		e.setLabels(id, l)
	}
}

// TestIncrementsAddUp makes thousands of random changes: what the kernel has after them one by one
// is what it has when all is told at once. The fake takes no deletion of what is not there, and no
// reference to it.
func TestIncrementsAddUp(t *testing.T) {
	for _, families := range [][]family{{ipv4}, {ipv4, ipv6}} {
		for seed := range uint64(40) {
			r := rand.New(rand.NewPCG(seed, 0))
			w := &world{map[string]labels.Set{}, map[objectKey]*pod{}, map[objectKey]string{}, map[string][]component{}, map[string]*host{}, map[string]labels.Set{}}
			var subnets []netip.Prefix
			if seed%2 == 0 {
				subnets = append(subnets, netip.MustParsePrefix("10.42.0.0/30"))
			}
			e := newEngine(nodeName, families, subnets...)
			fake := knftables.NewFake(knftables.InetFamily, tableName)
			p := &programmer{nft: fake, network: network{families: families, bridge: "cni0"}, fresh: true}
			var story []string
			for range 60 {
				for range 1 + r.IntN(3) {
					story = append(story, w.change(r, e))
				}
				if r.IntN(20) == 0 {
					p.fresh = true
				}
				if _, err := p.sync(t.Context(), e); err != nil {
					t.Fatalf("seed %d: %v, after\n%s", seed, err, strings.Join(story, "\n"))
				}
				other := newEngine(nodeName, families, subnets...)
				w.tell(other)
				anew := knftables.NewFake(knftables.InetFamily, tableName)
				if _, err := (&programmer{nft: anew, network: p.network, fresh: true}).sync(context.Background(), other); err != nil {
					t.Fatal(err)
				}
				if have, want := sorted(fake.Dump()), sorted(anew.Dump()); !slices.Equal(have, want) {
					t.Fatalf("seed %d, after\n%s\nit has\n%s\nbut not\n%s", seed, strings.Join(story, "\n"),
						strings.Join(without(have, want), "\n"), strings.Join(without(want, have), "\n"))
				}
			}
			for key := range maps.Clone(e.policies) {
				e.setPolicy(key, nil)
			}
			if _, err := p.sync(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if len(e.sets)+len(e.chains)+len(e.scopes)+len(e.held) > 0 {
				t.Fatalf("seed %d: %d sets and %d chains are left without a policy", seed, len(e.sets), len(e.chains))
			}
		}
	}
}

func sorted(dump string) []string {
	lines := strings.Split(dump, "\n")
	slices.Sort(lines)
	return lines
}

func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool { return slices.Contains(some, line) })
}

// TestVoidClaims follows an address that is given back and handed out while the API still has
// the pod that had it.
func TestVoidClaims(t *testing.T) {
	addr, now := netip.MustParseAddr("10.42.0.5"), time.Now()
	e := newEngine(nodeName, []family{ipv4})
	o := podObject("a", "first", "", nodeName)
	first := func() *pod { return podOf(withAddrs(o, addr), nodeName) }
	e.reserve(addr)
	e.setPod(objectKey{"a", "first"}, first())
	verdict := func() string {
		e.judge()
		return e.verdicts[verdictMap{ipv4, ingress}].want[addr.String()]
	}
	if verdict() != "accept" {
		t.Fatal("the first pod does not have its address")
	}
	e.release(addr, now)
	if v := verdict(); v != "" {
		t.Errorf("after its release the address has %q", v)
	}
	e.reserve(addr)
	if v := verdict(); v != "" {
		t.Errorf("handed out again, nobody knows to whom, the address has %q", v)
	}
	if at := e.expire(now); !at.Equal(now.Add(voidTime)) {
		t.Errorf("the claim is void until %s", at)
	}
	t.Run("the same pod got the same address", func(t *testing.T) {
		if next := e.expire(now.Add(voidTime)); !next.IsZero() {
			t.Errorf("something is left for %s", next)
		}
		if v := verdict(); v != "accept" {
			t.Errorf("after the time the address has %q", v)
		}
	})
	t.Run("the pod got another address", func(t *testing.T) {
		e.release(addr, now)
		e.setPod(objectKey{"a", "first"}, podOf(withAddrs(o, netip.MustParseAddr("10.42.0.6")), nodeName))
		if next := e.expire(now); !next.IsZero() {
			t.Error("a claim that nobody makes is void still")
		}
	})
}
