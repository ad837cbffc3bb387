package hostcheck

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

func checkFirewall(ctx context.Context, o *Options) []Finding {
	var found []Finding
	if running := o.processes("firewalld"); len(running) > 0 {
		found = append(found, warning(running[0]+" filters what pods send and what is sent to them", o.mendFirewalld()))
	}
	if strings.Contains(o.read("etc", "ufw", "ufw.conf"), "\nENABLED=yes") || strings.HasPrefix(o.read("etc", "ufw", "ufw.conf"), "ENABLED=yes") {
		found = append(found, warning("ufw is enabled, and drops what pods and other nodes send", o.mendUFW()))
	}
	if mayTry(o) {
		for _, chain := range droppingChains(ctx) {
			found = append(found, warning(chain+" drops what no rule of its own lets pass: pods may be cut off from other nodes and from outside",
				"let the ranges of pods and services pass there, or set its policy to accept"))
		}
	}
	return orOK(found, "none that would be in the way")
}

func (o *Options) ranges() []netip.Prefix {
	return append(append([]netip.Prefix{}, o.PodRanges...), o.ServiceRanges...)
}

// open are the ports that other machines must reach, as "6443/tcp".
func (o *Options) open() []string {
	var ports []string
	for _, p := range o.Ports {
		if !p.Address.IsLoopback() {
			ports = append(ports, fmt.Sprintf("%d/%s", p.Number, strings.ToLower(p.Protocol)))
		}
	}
	return ports
}

func (o *Options) mendFirewalld() string {
	sources, ports := "firewall-cmd --permanent --zone=trusted", "firewall-cmd --permanent"
	for _, p := range o.ranges() {
		sources += " --add-source=" + p.String()
	}
	for _, p := range o.open() {
		ports += " --add-port=" + p
	}
	return sources + " && " + ports + " && firewall-cmd --reload (or systemctl disable --now firewalld)"
}

func (o *Options) mendUFW() string {
	var words []string
	for _, p := range o.ranges() {
		words = append(words, "ufw allow from "+p.String())
	}
	for _, p := range o.open() {
		words = append(words, "ufw allow "+p)
	}
	return strings.Join(append(words, "ufw default allow routed"), " && ")
}

// droppingChains are base chains of the forward hook with the policy drop.
func droppingChains(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	var found []string
	if out, err := output(ctx, "nft", "-s", "list", "chains"); err == nil {
		found = parseDropping(out)
	}
	return found
}

// parseDropping reads nft's list of chains.
func parseDropping(text string) []string {
	var found []string
	table, chain := "", ""
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 3 && fields[0] == "table":
			table = fields[1] + " " + fields[2]
		case len(fields) >= 2 && fields[0] == "chain":
			chain = fields[1]
		case strings.Contains(line, "hook forward") && strings.Contains(line, "policy drop"):
			found = append(found, fmt.Sprintf("the chain %s of the nftables table %s", chain, table))
		}
	}
	return found
}
