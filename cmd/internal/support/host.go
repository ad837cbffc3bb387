package support

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// files of the host that say what it is. None holds anybody's data.
var files = []string{
	"/etc/os-release", "/etc/resolv.conf", "/etc/hosts",
	"/proc/version", "/proc/cmdline", "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/swaps", "/proc/filesystems",
	"/proc/self/mountinfo", "/proc/cgroups", "/proc/modules", "/proc/net/sockstat", "/proc/net/snmp", "/proc/net/softnet_stat",
	"/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io",
}

// programs that tell what else there is, where they are installed.
var programs = [][]string{
	{"ip", "-details", "address"}, {"ip", "route", "show", "table", "all"}, {"ip", "rule"}, {"ip", "neighbour"},
	{"nft", "list", "ruleset"}, {"iptables-save"}, {"ip6tables-save"},
	{"ss", "-lntup"}, {"df", "-h"}, {"df", "-i"},
}

// settings of the kernel that a node depends on.
var settings = []string{
	"net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv4/conf/all/rp_filter", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/disable_ipv6",
	"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables", "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count",
	"fs/inotify/max_user_instances", "fs/inotify/max_user_watches", "fs/file-max", "fs/file-nr", "kernel/pid_max", "kernel/threads-max",
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "user/max_user_namespaces",
}

// programLimit bounds how long a program may take.
const programLimit = 10 * time.Second

// AddHost writes what the machine is.
func (b *Bundle) AddHost(ctx context.Context) {
	for _, file := range files {
		text, err := readStart(file)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				b.Failed(file, err)
			}
			continue
		}
		b.Add(filepath.Join("host", strings.ReplaceAll(strings.TrimPrefix(file, "/"), "/", "-")+".txt"), text)
	}
	var values strings.Builder
	for _, name := range settings {
		if text, err := readStart("/proc/sys/" + name); err == nil {
			fmt.Fprintf(&values, "%s = %s\n", strings.ReplaceAll(name, "/", "."), strings.TrimSpace(text))
		}
	}
	b.Add("host/sysctl.txt", values.String())
	b.Add("host/processes.txt", processes())
	for _, words := range programs {
		name := "host/" + strings.NewReplacer(" -", "-", " ", "-").Replace(strings.Join(words, " ")) + ".txt"
		text, err := Output(ctx, words...)
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		if err != nil {
			b.Failed(strings.Join(words, " "), err)
		}
		if text != "" {
			b.Add(name, text)
		}
	}
	if text, err := kernelLog(); err != nil {
		b.Failed("the kernel's log", err)
	} else {
		b.AddLog("host/kernel.log", text)
	}
}

// Output is the beginning of what a program writes, and its error.
func Output(ctx context.Context, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programLimit)
	defer cancel()
	var out bounded
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ strings.Builder }

func (w *bounded) Write(p []byte) (int, error) {
	w.Builder.Write(p[:min(len(p), MaxFile+1-min(MaxFile+1, w.Len()))])
	return len(p), nil
}

func readStart(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	return string(text), err
}

// ReadEnd is the end of a file, a little more than AddLog takes.
func ReadEnd(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", file)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-MaxFile-1), MaxFile+1))
	return string(text), err
}

// processes are what runs on the machine, without the words of the command lines, which often
// hold secrets.
func processes() string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	fmt.Fprintln(&b, "PID\tPPID\tUID\tSTATE\tTHREADS\tRSS\tNAME")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		text, err := readStart("/proc/" + e.Name() + "/status")
		if err != nil {
			continue // it has ended
		}
		has := map[string]string{}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(line, ":")
			has[key] = strings.TrimSpace(value)
		}
		uid, _, _ := strings.Cut(has["Uid"], "\t")
		fmt.Fprintf(&b, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Name(), has["PPid"], uid, has["State"], has["Threads"], has["VmRSS"], has["Name"])
	}
	return b.String()
}

// kernelLog is what the kernel has said lately (dmesg).
func kernelLog() (string, error) {
	const readAll, bufferSize = 3, 10 // SYSLOG_ACTION_… of syslog(2)
	size, err := unix.Klogctl(bufferSize, nil)
	if err != nil {
		return "", err
	}
	text := make([]byte, size)
	n, err := unix.Klogctl(readAll, text)
	if err != nil {
		return "", err
	}
	return string(text[:n]), nil
}
