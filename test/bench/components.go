package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// statuses asks the node's admin socket for its components: a sub-command would cost the
// machine more than what is measured.
func statuses(ctx context.Context, n *harness.Node) (map[string]harness.Component, error) {
	socket := filepath.Join(n.Host.RunDir, "server", "admin.sock")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	answer, err := harness.Get(ctx, &client, "http://k3m/v1/components")
	if err != nil {
		return nil, err
	}
	var list []harness.Component
	if err := json.Unmarshal([]byte(answer), &list); err != nil {
		return nil, err
	}
	byID := map[string]harness.Component{}
	for _, c := range list {
		byID[c.ID] = c
	}
	return byID, nil
}

// waitComponents asks each 5 ms until the components are as wanted.
func waitComponents(ctx context.Context, n *harness.Node, wanted func(map[string]harness.Component) bool) (map[string]harness.Component, error) {
	var last map[string]harness.Component
	for {
		all, err := statuses(ctx, n)
		if err == nil && wanted(all) {
			return all, nil
		}
		if err == nil {
			last = all
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-n.Done():
			return nil, fmt.Errorf("k3m has ended: %s", n.Logs())
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the components: %w: %+v", context.Cause(ctx), last)
		}
	}
}

// allReady tells whether all components serve.
func allReady(all map[string]harness.Component) bool {
	for _, c := range all {
		if !c.Ready() {
			return false
		}
	}
	return len(all) > 0
}

// measureRecovery kills each component in turn and gives the time until it is ready again.
// The pause between two deaths of one keeps the back-off out of the figures: they are the
// first death's.
func measureRecovery(lab *harness.Lab, tb harness.TB, runs int) (map[string]stats, error) {
	own := &harness.Bench{}
	defer own.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	n := lab.NewHost(own, "recovery").Serve(own)
	all, err := waitComponents(ctx, n, allReady)
	if err != nil {
		return nil, err
	}
	times := map[string][]time.Duration{}
	for range runs {
		for id := range all {
			took, err := recoverOnce(ctx, n, id)
			if err != nil {
				return nil, err
			}
			tb.Logf("%s ready %s after kill -9", id, took)
			times[id] = append(times[id], took)
		}
		if err := rest(ctx, n, recoveryPause); err != nil {
			return nil, err
		}
	}
	n.Stop(own)
	if own.Failed() {
		tb.Errorf("the measurement of recovery failed")
	}
	sums := map[string]stats{}
	for id, t := range times {
		sums[id] = sumUp(t)
	}
	return sums, nil
}

// recoveryPause is longer than what a component must have been ready for its back-off to
// begin anew.
const recoveryPause = 15 * time.Second

func recoverOnce(ctx context.Context, n *harness.Node, id string) (time.Duration, error) {
	before, err := statuses(ctx, n)
	if err != nil {
		return 0, err
	}
	dead := before[id].Pid
	start := time.Now()
	if err := n.Host.Kill(dead, 9); err != nil {
		return 0, fmt.Errorf("kill %s: %w", id, err)
	}
	_, err = waitComponents(ctx, n, func(all map[string]harness.Component) bool { return all[id].Ready() && all[id].Pid != dead })
	return time.Since(start), err
}

// measureSwaps gives dns.coredns another configuration again and again, and tells the longest
// time between two answers of the cluster's DNS around each.
func measureSwaps(lab *harness.Lab, tb harness.TB, runs int) (stats, error) {
	own := &harness.Bench{}
	defer own.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	n := lab.NewHost(own, "swaps").Serve(own)
	if _, err := waitComponents(ctx, n, allReady); err != nil {
		return stats{}, err
	}
	var gaps []time.Duration
	for run := range runs {
		asking, stop := context.WithCancel(ctx)
		gap := make(chan time.Duration, 1)
		go func() { gap <- longestGap(asking, n.Host) }()
		out, err := n.Host.K3m(ctx, "component", "configure", "dns.coredns", fmt.Sprintf("cacheSeconds=%d", 10+run)).CombinedOutput()
		if err == nil {
			err = rest(ctx, n, time.Second) // until the new one has surely answered
		}
		stop()
		took := <-gap
		if err != nil {
			return stats{}, fmt.Errorf("configure dns.coredns: %w: %s", err, out)
		}
		tb.Logf("swap %d: %s without an answer", run+1, took)
		gaps = append(gaps, took)
	}
	n.Stop(own)
	if own.Failed() {
		tb.Errorf("the measurement of swaps failed")
	}
	return sumUp(gaps), nil
}

// longestGap asks for a name of the cluster each 5 ms until ctx ends, and gives the longest
// time between two answers.
func longestGap(ctx context.Context, h *harness.Host) time.Duration {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.Dial(ctx, network, "10.43.0.10:53")
	}}
	var longest time.Duration
	for last := time.Now(); ; {
		asked, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_, err := resolver.LookupHost(asked, "kubernetes.default.svc.cluster.local.")
		cancel()
		if err == nil {
			longest = max(longest, time.Since(last))
			last = time.Now()
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return longest
		}
	}
}
