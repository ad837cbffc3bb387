package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// result is what is printed.
type result struct {
	Command string  `json:"command"`
	Machine machine `json:"machine"`
	K3m     string  `json:"k3m"`
	Size    size    `json:"size"`
	Unpack  stats   `json:"unpackSeconds"`
	Boot    boot    `json:"boot"`
	Idle    *idle   `json:"idle,omitempty"`
	// Recovery is the time from kill -9 of a component until it is ready again.
	Recovery map[string]stats `json:"recoverySeconds,omitempty"`
	// DNSGap is the longest time without an answer of the cluster's DNS around each change
	// of its configuration.
	DNSGap *stats      `json:"dnsGapAtSwapSeconds,omitempty"`
	DNS    *dnsFigures `json:"dns,omitempty"`
	// Ingress is what the ingress controllers do.
	Ingress *ingressFigures `json:"ingress,omitempty"`
}

func main() {
	harness.Roles()
	runs := flag.Int("runs", 10, "how many boots are measured")
	idleFor := flag.Duration("idle", time.Minute, "how long an idle node is measured, after as long a rest; 0 leaves it out")
	recoveries := flag.Int("recoveries", 5, "how often each component is killed, and cluster DNS is configured anew; 0 leaves both out")
	queries := flag.Int("queries", 20000, "how many names a second are asked for, for ten seconds; 0 leaves it out")
	traffic := flag.Duration("traffic", 5*time.Second, "how long each ingress, a bare nginx and a pod are asked in each of three rounds, twice; 0 leaves it out")
	ingresses := flag.Int("ingresses", 10000, "how many Ingresses there are at most, for memory and delays; 0 leaves those out, up to 1000 is 1000")
	flag.Parse()
	if os.Geteuid() != 0 {
		fail("the benchmarks make network namespaces and containers and need root: run `sudo make bench`")
	}
	r, err := measure(options{*runs, *idleFor, *recoveries, *queries, *traffic, *ingresses})
	if r == nil {
		fail(err.Error())
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := errors.Join(out.Encode(r), err); err != nil {
		fail(err.Error())
	}
}

func fail(why string) {
	fmt.Fprintln(os.Stderr, why)
	os.Exit(1)
}

// options are what the flags say.
type options struct {
	runs       int
	idleFor    time.Duration
	recoveries int
	queries    int
	traffic    time.Duration
	ingresses  int
}

// measure gives the figures, with an error too when something went wrong beside.
func measure(o options) (r *result, err error) {
	lab, err := harness.Open()
	if err != nil {
		return nil, err
	}
	tb := &harness.Bench{}
	defer func() {
		if abort, ok := recover().(harness.Abort); ok {
			err = fmt.Errorf("%s", abort.Reason)
		}
		tb.Close()
		if closed := lab.Close(); err == nil {
			err = closed
		}
		if err == nil && tb.Failed() {
			err = fmt.Errorf("the figures are not to be trusted: something went wrong")
		}
	}()
	all := &result{Command: "bench " + strings.Join(os.Args[1:], " "), Machine: thisMachine()}
	if all.Size, all.Unpack, all.K3m, err = measureFile(lab, tb, o.runs); err != nil {
		return nil, err
	}
	if all.Boot, err = measureBoots(lab, tb, o.runs); err != nil {
		return nil, err
	}
	if o.idleFor > 0 {
		if all.Idle, err = measureIdle(lab, tb, o.idleFor); err != nil {
			return nil, err
		}
	}
	if o.recoveries > 0 {
		if all.Recovery, err = measureRecovery(lab, tb, o.recoveries); err != nil {
			return nil, err
		}
		gap, err := measureSwaps(lab, tb, o.recoveries)
		if err != nil {
			return nil, err
		}
		all.DNSGap = &gap
	}
	if o.queries > 0 {
		if all.DNS, err = measureDNS(lab, tb, o.queries, 10*time.Second); err != nil {
			return nil, err
		}
	}
	if o.traffic > 0 || o.ingresses > 0 {
		if all.Ingress, err = measureIngress(lab, tb, o.traffic, o.ingresses); err != nil {
			return nil, err
		}
	}
	return all, nil
}
