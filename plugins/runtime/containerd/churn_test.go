package containerd

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestKilledInTheMiddle kills containerd while sandboxes come and go. What was there
// before lives on, and once all sandboxes are removed through CRI nothing is left, of
// the half-made ones neither.
func TestKilledInTheMiddle(t *testing.T) {
	n := newNode(t)
	n.writeNetwork(filepath.Join(t.TempDir(), "calls"))
	n.start()
	writeImage(t, n.facts.Paths.ImagesDir+"/busybox.tar", busyboxImage(t, testBusybox))
	n.waitImage(testBusybox)
	_, steady := n.runPod("steady")
	pid := n.containerPID(t, steady)

	ctx := context.Background()
	pods, _ := n.cri()
	for round := range 5 {
		var churn sync.WaitGroup
		for worker := range 3 {
			churn.Go(func() {
				for i := range 100 {
					config := n.sandboxConfig(t, fmt.Sprintf("churn-%d-%d-%d", round, worker, i))
					config.Linux.SecurityContext.NamespaceOptions.Network = runtime.NamespaceMode_POD
					s, err := pods.RunPodSandbox(ctx, &runtime.RunPodSandboxRequest{Config: config})
					if err != nil {
						return // containerd was killed
					}
					if i%2 == 0 {
						continue
					}
					if _, err := pods.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: s.PodSandboxId}); err != nil {
						return
					}
				}
			})
		}
		// Any moment is good: that is what is tested.
		time.Sleep(time.Duration(100+50*round) * time.Millisecond)
		n.kill()
		churn.Wait()
		n.start()
	}
	if again := n.containerPID(t, steady); again != pid {
		t.Errorf("the steady container's process is %s, was %s", again, pid)
	}
	all, err := pods.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{}, waitForReady)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all.Items {
		if _, err := pods.StopPodSandbox(ctx, &runtime.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			t.Error(err)
		}
		if _, err := pods.RemovePodSandbox(ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil {
			t.Error(err)
		}
	}
	t.Logf("removed %d sandboxes; %d half-started shims and %d network namespaces were removed before", len(all.Items),
		strings.Count(n.log.String(), "half started"), strings.Count(n.log.String(), "half made when"))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		shims, err := cgroupProcesses(shimCgroupOf(n.facts.CgroupParent))
		if err != nil {
			t.Fatal(err)
		}
		mounts, err := mountsBelow(n.state)
		if err != nil {
			t.Fatal(err)
		}
		if len(shims) == 0 && len(mounts) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for _, m := range mounts {
				t.Error("left over:", m.Mountpoint)
			}
			t.Fatalf("shims %v and %d mounts are left", shims, len(mounts))
		}
	}
}
