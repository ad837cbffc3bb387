package main

import (
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stats sum up one figure over all runs.
type stats struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	All    []float64 `json:"all"`
}

func sumUp(times []time.Duration) stats {
	seconds := make([]float64, 0, len(times))
	for _, t := range times {
		seconds = append(seconds, math.Round(t.Seconds()*1e4)/1e4)
	}
	return sumUpFigures(seconds)
}

// sumUpFigures sums up figures of any unit.
func sumUpFigures(figures []float64) stats {
	s := stats{All: figures}
	if len(s.All) == 0 {
		return s
	}
	sorted := slices.Sorted(slices.Values(s.All))
	s.Min, s.Max = sorted[0], sorted[len(sorted)-1]
	s.Median = (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	return s
}

// machine says on what the figures were made.
type machine struct {
	CPUs        int    `json:"cpus"`
	CPU         string `json:"cpu,omitempty"`
	MemoryBytes uint64 `json:"memoryBytes"`
	Kernel      string `json:"kernel"`
	// Load is the average of the last minute when the measurement began: on a machine
	// that is busy with other things the figures say little.
	Load float64 `json:"load1m"`
}

func thisMachine() machine {
	m := machine{CPUs: runtime.NumCPU()}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryBytes = uint64(info.Totalram) * uint64(info.Unit)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(text), " ")
		m.Load, _ = strconv.ParseFloat(first, 64)
	}
	return m
}
