package hostcheck

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"

	"github.com/k3m-io/k3m/core/ports"
)

// settings that k3m sets by itself where it can.
var settings = []struct{ name, value string }{
	{"net/ipv4/conf/all/forwarding", "1"},
	{"vm/overcommit_memory", "1"},
	{"kernel/panic", "10"},
	{"kernel/panic_on_oops", "1"},
}

func checkSettings(_ context.Context, o *Options) []Finding {
	var wrong []string
	for _, s := range settings {
		value := o.read("proc", "sys", s.name)
		if value != "" && value != s.value && unix.Access(o.path("proc", "sys", s.name), unix.W_OK) != nil {
			wrong = append(wrong, strings.ReplaceAll(s.name, "/", ".")+"="+s.value)
		}
	}
	if len(wrong) > 0 && mayTry(o) {
		return []Finding{failure("kernel settings are wrong and can't be changed from here", "on the host: sysctl -w "+strings.Join(wrong, " "))}
	}
	return ok("as they have to be, or k3m can set them")
}

func checkBridgeFilter(_ context.Context, o *Options) []Finding {
	if o.exists("proc", "sys", "net", "bridge", "bridge-nf-call-iptables") {
		return ok("there")
	}
	if o.moduleKnown("br_netfilter") {
		return ok("not loaded yet; k3m loads it")
	}
	return []Finding{warning("the kernel module br_netfilter is missing: a pod does not reach a Service whose endpoint is on its own node", o.mendKernel("BRIDGE_NETFILTER", "br_netfilter"))}
}

// ownInterfaces are those of a node's own network, by the beginnings of their names.
var ownInterfaces = []string{"cni0", "flannel", "veth"}

func ownInterface(name string) bool {
	for _, prefix := range ownInterfaces {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func checkNetwork(_ context.Context, o *Options) []Finding {
	interfaces, err := net.Interfaces()
	if err != nil {
		return skipped(err.Error())
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return skipped("list routes: " + err.Error())
	}
	names := map[int]string{}
	for _, i := range interfaces {
		names[i.Index] = i.Name
	}
	return orOK(networkFindings(o, names, routes), "no route is in the way of pods or services")
}

// networkFindings goes by the routes of the machine; names are those of its interfaces.
func networkFindings(o *Options, names map[int]string, routes []netlink.Route) []Finding {
	var found []Finding
	global := false
	seen := map[string]bool{}
	for _, r := range routes {
		name := names[r.LinkIndex]
		if r.Dst == nil || r.Dst.IP.IsUnspecified() {
			global = true
			continue
		}
		if ownInterface(name) && o.Used || r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast() || r.Dst.IP.IsLoopback() {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		if !ok {
			continue
		}
		global = true
		ones, _ := r.Dst.Mask.Size()
		to := netip.PrefixFrom(addr.Unmap(), ones)
		for _, f := range o.overlaps(to, name, r.Gw != nil) {
			if !seen[f.Found] {
				seen[f.Found] = true
				found = append(found, f)
			}
		}
	}
	if !global {
		found = append(found, failure("no interface that is up has an address that others could reach", "set the network up, or name an address with --node-ip"))
	}
	return found
}

// overlaps are the ranges of the cluster that a route of the machine is in the way of. One that leads
// to a few of the addresses wins over the cluster's; one that is wider gives way.
func (o *Options) overlaps(to netip.Prefix, link string, gateway bool) []Finding {
	var found []Finding
	const fix = "renumber that network, remove the interface if nothing uses it, or choose another range with "
	for _, pods := range o.PodRanges {
		inside := to.Bits() >= pods.Bits()
		switch {
		case !pods.Overlaps(to), inside && o.Used && gateway: // of another node's pods
		case inside:
			found = append(found, failure(fmt.Sprintf("the machine has a route to %s (%s), inside of the range of pods, %s: one of them would not be reached", to, link, pods), fix+"--cluster-cidr"))
		default:
			found = append(found, warning(fmt.Sprintf("the machine has a route to %s (%s), which the range of pods, %s, is a part of: what is there in that range can't be reached any more", to, link, pods), fix+"--cluster-cidr"))
		}
	}
	for _, services := range o.ServiceRanges {
		if services.Overlaps(to) {
			found = append(found, warning(fmt.Sprintf("the machine has a route to %s (%s), which shares addresses with the range of services, %s: what is there may not be reached any more", to, link, services), fix+"--service-cidr"))
		}
	}
	return found
}

func checkPorts(_ context.Context, o *Options) []Finding {
	var found []Finding
	for _, p := range o.Ports {
		holder, held, err := ports.HolderOf(o.path("proc"), p.Protocol, p.Address, p.Number)
		if err != nil {
			return skipped(err.Error())
		}
		if !held || o.Server != 0 && o.descends(holder.PID) || o.Server != 0 && holder.PID == 0 && p.Protocol == "UDP" {
			continue
		}
		text := fmt.Sprintf("%s wants %s port %d, which %s has", p.Who, p.Protocol, p.Number, holder)
		fix := "stop that, or have it listen elsewhere"
		if p.Optional {
			found = append(found, warning(text, fix))
			continue
		}
		found = append(found, failure(text, fix))
	}
	if o.Server != 0 {
		return orOK(found, "nobody but this node has those that it uses")
	}
	return orOK(found, "those that the node uses are free")
}

// descends tells whether a process is the server or was started by it.
func (o *Options) descends(pid int) bool {
	for depth := 0; pid > 1 && depth < 64; depth++ {
		if pid == o.Server {
			return true
		}
		parent := 0
		for line := range strings.Lines(o.read("proc", strconv.Itoa(pid), "status")) {
			if value, found := strings.CutPrefix(line, "PPid:"); found {
				parent, _ = strconv.Atoi(strings.TrimSpace(value)) // 0 ends the walk
			}
		}
		pid = parent
	}
	return false
}
