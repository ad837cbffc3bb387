package hostcheck

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// anonymous are hostnames that many machines have.
var anonymous = []string{"localhost", "localhost.localdomain", "raspberrypi", "debian", "ubuntu", "fedora", "alpine"}

func checkHostname(_ context.Context, o *Options) []Finding {
	if o.NodeNameGiven {
		return ok("not used: the node's name is given, " + o.NodeName)
	}
	name := o.read("proc", "sys", "kernel", "hostname")
	lower := strings.ToLower(name)
	if problems := validation.IsDNS1123Subdomain(lower); len(problems) > 0 {
		return []Finding{failure(fmt.Sprintf("the hostname %q can't be a node's name: only letters, digits, - and . can be in one", name), "choose a name with --node-name, or hostnamectl set-hostname")}
	}
	if slices.Contains(anonymous, lower) {
		return []Finding{warning(fmt.Sprintf("the hostname is %q, which other machines have as well: a second node of that name is refused", name), "choose a name with --node-name, or hostnamectl set-hostname")}
	}
	return ok(name)
}

var machineID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func checkMachineID(_ context.Context, o *Options) []Finding {
	const fix = "rm -f /etc/machine-id && systemd-machine-id-setup (or dbus-uuidgen --ensure=/etc/machine-id)"
	switch id := o.read("etc", "machine-id"); {
	case id == "":
		return []Finding{warning("/etc/machine-id is missing or empty: the node has no machine ID", fix)}
	case !machineID.MatchString(id):
		return []Finding{warning("/etc/machine-id does not hold an ID", fix)}
	}
	return ok("there is one; it has to differ from those of other nodes, also in cloned machines")
}
