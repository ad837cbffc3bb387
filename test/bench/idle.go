package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/k3m-io/k3m/test/harness"
)

// idle is what a node without pods uses, by process and together.
type idle struct {
	RestSeconds    float64          `json:"restSeconds"`
	MeasureSeconds float64          `json:"measureSeconds"`
	Total          usage            `json:"total"`
	Processes      map[string]usage `json:"processes"`
}

// usage is that of one process. CPU is in percent of one core.
type usage struct {
	CPUPercent            float64 `json:"cpuPercent"`
	PSSBytes              int64   `json:"pssBytes"`
	RSSBytes              int64   `json:"rssBytes"`
	AnonymousBytes        int64   `json:"anonymousBytes"`
	WrittenBytesPerSecond float64 `json:"writtenBytesPerSecond"`
}

// reading is what the kernel has counted of a process.
type reading struct {
	ticks, written int64
}

// ticksPerSecond is USER_HZ, which is 100 on all that Go runs on.
const ticksPerSecond = 100

func measureIdle(lab *harness.Lab, tb harness.TB, length time.Duration) (*idle, error) {
	own := &harness.Bench{}
	defer own.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*length+3*time.Minute)
	defer cancel()
	h := lab.NewHost(own, "idle")
	n := h.Serve(own)
	if _, err := n.WaitReady(ctx); err != nil {
		return nil, err
	}
	if err := rest(ctx, n, length); err != nil { // what a boot leaves to do gets done
		return nil, err
	}
	processes, err := processesOf(ctx, n)
	if err != nil {
		return nil, err
	}
	before, start := map[string]reading{}, time.Now()
	for name, pid := range processes {
		if before[name], err = readCounters(pid); err != nil {
			return nil, err
		}
	}
	if err := rest(ctx, n, length); err != nil {
		return nil, err
	}
	took := time.Since(start).Seconds()
	result := &idle{RestSeconds: length.Seconds(), MeasureSeconds: took, Processes: map[string]usage{}}
	for name, pid := range processes {
		after, err := readCounters(pid)
		if err != nil {
			return nil, err
		}
		u, err := readMemory(pid)
		if err != nil {
			return nil, err
		}
		u.CPUPercent = round(float64(after.ticks-before[name].ticks) / ticksPerSecond / took * 100)
		u.WrittenBytesPerSecond = round(float64(after.written-before[name].written) / took)
		result.Processes[name] = u
		t := &result.Total
		t.CPUPercent = round(t.CPUPercent + u.CPUPercent)
		t.WrittenBytesPerSecond = round(t.WrittenBytesPerSecond + u.WrittenBytesPerSecond)
		t.PSSBytes += u.PSSBytes
		t.RSSBytes += u.RSSBytes
		t.AnonymousBytes += u.AnonymousBytes
	}
	n.Stop(own)
	if own.Failed() {
		tb.Errorf("the idle measurement failed")
	}
	return result, nil
}

// rest lets time pass, as long as the node runs.
func rest(ctx context.Context, n *harness.Node, length time.Duration) error {
	select {
	case <-time.After(length):
		return nil
	case <-n.Done():
		return fmt.Errorf("k3m has ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// processesOf are the core and the plugins by name, with their process IDs outside of
// the host.
func processesOf(ctx context.Context, n *harness.Node) (map[string]int, error) {
	all, err := n.Components(ctx)
	if err != nil {
		return nil, err
	}
	list, err := n.Host.Processes()
	if err != nil {
		return nil, err
	}
	processes := map[string]int{"core": n.Pid()}
	for id, c := range all {
		for _, p := range list {
			if p.Pid == c.Pid && p.Outer != 0 {
				processes[id] = p.Outer
			}
		}
		if processes[id] == 0 {
			return nil, fmt.Errorf("component %s has no process", id)
		}
	}
	return processes, nil
}

func readCounters(pid int) (reading, error) {
	var r reading
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return r, err
	}
	// The second field, in parentheses, may hold anything; utime and stime are the 14th
	// and 15th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return r, fmt.Errorf("read the times of process %d: %q", pid, stat)
	}
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return r, err
		}
		r.ticks += n
	}
	io, err := keyed(pid, "io")
	r.written = io["write_bytes"]
	return r, err
}

func readMemory(pid int) (usage, error) {
	m, err := keyed(pid, "smaps_rollup")
	return usage{PSSBytes: m["Pss"] << 10, RSSBytes: m["Rss"] << 10, AnonymousBytes: m["Anonymous"] << 10}, err
}

// keyed reads a file of lines like "Key:  123 kB".
func keyed(pid int, file string) (map[string]int64, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := map[string]int64{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		key, rest, _ := strings.Cut(sc.Text(), ":")
		if f := strings.Fields(rest); len(f) > 0 {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				values[key] = n
			}
		}
	}
	return values, sc.Err()
}

func round(x float64) float64 { return math.Round(x*100) / 100 }
