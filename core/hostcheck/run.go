package hostcheck

import (
	"cmp"
	"context"
)

// check looks at one subject. It gives at least one finding.
type check struct {
	name string
	look func(context.Context, *Options) []Finding
}

// checks are all of them, in the order in which they are shown.
var checks = []check{
	{"privileges", checkPrivileges},
	{"kernel", checkKernel},
	{"namespaces", checkNamespaces},
	{"network devices", checkDevices},
	{"packet filter", checkPacketFilter},
	{"overlayfs", checkOverlay},
	{"security modules", checkSecurityModules},
	{"cgroups", checkCgroups},
	{"memory", checkMemory},
	{"swap", checkSwap},
	{"disk", checkDisk},
	{"inotify", checkInotify},
	{"open files", checkOpenFiles},
	{"kernel settings", checkSettings},
	{"br_netfilter", checkBridgeFilter},
	{"clock", checkClock},
	{"time sync", checkTimeSync},
	{"hostname", checkHostname},
	{"machine-id", checkMachineID},
	{"network", checkNetwork},
	{"ports", checkPorts},
	{"firewall", checkFirewall},
	{"other clusters", checkLeftovers},
}

// Run makes all checks, one after another.
func Run(ctx context.Context, o Options) Report {
	o.root = cmp.Or(o.root, "/")
	r := Report{Runs: true}
	for _, c := range checks {
		for _, f := range c.look(ctx, &o) {
			f.Check = c.name
			switch f.Level {
			case Failure:
				r.Runs = false
				r.Failures++
			case Warning:
				r.Warnings++
			}
			r.Findings = append(r.Findings, f)
		}
	}
	return r
}

func ok(found string) []Finding { return []Finding{{Level: OK, Found: found}} }

func skipped(found string) []Finding { return []Finding{{Level: Skipped, Found: found}} }

func warning(found, fix string) Finding { return Finding{Level: Warning, Found: found, Fix: fix} }

func failure(found, fix string) Finding { return Finding{Level: Failure, Found: found, Fix: fix} }

// orOK is what was found, or that all is well.
func orOK(found []Finding, well string) []Finding {
	if len(found) == 0 {
		return ok(well)
	}
	return found
}
