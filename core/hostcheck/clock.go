package hostcheck

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// plausible is a time before which no clock can be right: this release is younger.
var plausible = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const setClock = "set the clock (timedatectl set-ntp true, or date -s), and see that it is right after a boot"

func checkClock(_ context.Context, o *Options) []Finding { return clockFindings(o, time.Now()) }

func clockFindings(o *Options, now time.Time) []Finding {
	if now.Before(plausible) {
		return []Finding{failure("the clock says "+now.UTC().Format(time.DateOnly)+", which is past: certificates would not be valid", setClock)}
	}
	for _, name := range []string{"server-ca.crt", "client-ca.crt"} {
		// The data directory is a path of the host as well.
		block, _ := pem.Decode([]byte(o.read(filepath.Join(o.DataDir, "server", "tls", name))))
		if block == nil {
			continue
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
		case now.Before(ca.NotBefore):
			return []Finding{failure(fmt.Sprintf("the clock says %s, but this cluster was made at %s: its certificates are not valid yet",
				now.UTC().Format(time.DateTime), ca.NotBefore.UTC().Format(time.DateTime)), setClock)}
		case now.After(ca.NotAfter):
			return []Finding{failure(fmt.Sprintf("the cluster's authority %s ended at %s", name, ca.NotAfter.UTC().Format(time.DateTime)), "if that is in the future, set the clock; else the cluster needs new authorities")}
		}
	}
	return ok(now.UTC().Format(time.DateTime) + " UTC")
}

func checkTimeSync(_ context.Context, o *Options) []Finding {
	var state unix.Timex // asks, as its Modes are 0
	status, err := unix.Adjtimex(&state)
	if err != nil {
		return skipped(fmt.Sprintf("ask the kernel: %v", err))
	}
	daemons := o.processes("chronyd", "ntpd", "systemd-timesyn", "ntpsec", "openntpd", "ptp4l", "phc2sys")
	if len(daemons) > 0 {
		return ok("kept by " + list(daemons))
	}
	if status == unix.TIME_ERROR || state.Status&unix.STA_UNSYNC != 0 {
		return []Finding{warning("nothing keeps the clock: nodes whose clocks differ refuse each other's certificates and leases",
			"install one (apt install chrony), or timedatectl set-ntp true")}
	}
	return ok("the kernel says that the clock is kept")
}
