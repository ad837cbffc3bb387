package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/moby/sys/mountinfo"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestCleanup takes one of two nodes off the host, with its containers running.
func TestCleanup(t *testing.T) {
	gone, stays := newNode(t), newNode(t)
	var pids []int
	calls := filepath.Join(t.TempDir(), "calls")
	gone.writeNetwork(calls)
	containers := map[*node]string{}
	for _, n := range []*node{gone, stays} {
		writeImage(t, filepath.Join(n.facts.Paths.ImagesDir, "busybox.tar"), busyboxImage(t, testBusybox))
		n.start()
		n.waitImage(testBusybox)
	}
	sandbox, container := gone.runPodOn("gone", runtime.NamespaceMode_POD)
	_, containers[stays] = stays.runPod("stays")
	pid, err := strconv.Atoi(gone.containerPID(t, container))
	if err != nil {
		t.Fatal(err)
	}
	shims, err := cgroupProcesses(shimCgroupOf(gone.facts.CgroupParent))
	if err != nil {
		t.Fatal(err)
	}
	pids = append(shims, pid)
	record := filepath.Join(libcni.CacheDir, "results", "testnet-"+sandbox+"-eth0")
	if _, err := os.Stat(record); err != nil {
		t.Fatalf("the sandbox has no network: %v", err)
	}

	gone.kill() // as a host does with a component that does not stop
	gone.sweep()

	for _, pid := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	if mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Dir(gone.state))); err != nil || len(mounts) > 0 {
		t.Errorf("mounts %v, %v", mounts, err)
	}
	for _, left := range []string{gone.root, gone.state, gone.shimSockets, record} {
		if _, err := os.Lstat(left); err == nil {
			t.Errorf("%s is still there", left)
		}
	}
	if procs, err := cgroupProcesses(shimCgroupOf(gone.facts.CgroupParent)); err != nil || len(procs) > 0 {
		t.Errorf("processes %v in the shims' cgroup, %v", procs, err)
	}
	if raw, err := os.ReadFile(calls); err != nil || !strings.HasSuffix(string(raw), "DEL "+sandbox+"\n") {
		t.Errorf("the network's plugin was called with %q, %v", raw, err)
	}
	if out := stays.exec(containers[stays], "/bin/echo", "hello"); out != "hello\n" {
		t.Errorf("the other node's container wrote %q", out)
	}
	t.Run("a second time", func(t *testing.T) { gone.sweep() })
}

// writeNetwork gives the node a CNI network whose plugin writes down how it is called.
func (n *node) writeNetwork(calls string) {
	n.t.Helper()
	for path, content := range map[string]string{
		filepath.Join(n.facts.Paths.CNIBinDir, "testplugin"): `#!/bin/sh
case "$CNI_COMMAND" in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'; exit ;;
ADD) echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'"$CNI_NETNS"'"}],"ips":[{"address":"10.88.0.2/24","interface":0}]}' ;;
esac
echo "$CNI_COMMAND $CNI_CONTAINERID" >>` + calls + "\n",
		filepath.Join(n.facts.Paths.CNIConfDir, "10-test.conflist"): `{"cniVersion":"1.0.0","name":"testnet","plugins":[{"type":"testplugin"}]}`,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			n.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
}
