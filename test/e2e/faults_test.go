package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/k3m-io/k3m/test/harness"
)

const (
	// faultRounds is how often each fault is injected.
	faultRounds = 10
	// apiBackLimit is how long the API may be away after the core was killed and
	// started again.
	apiBackLimit = 5 * time.Second
	// pluginBackLimit bounds the wait for a plugin to be ready again. The tenth death in
	// a row is answered later than the first, by the back-off.
	pluginBackLimit = 60 * time.Second
	// lifelineLimit is how long a plugin may outlive its core.
	lifelineLimit = 8 * time.Second
)

const steadyPods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: steady}
spec:
  replicas: 2
  selector: {matchLabels: {app: steady}}
  template:
    metadata: {labels: {app: steady}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: echo, image: ECHO}]
`

// TestFaults injects one fault at a time, ten rounds in a row, under clients that keep
// asking a pod.
func TestFaults(t *testing.T) {
	s := play(t)
	s.apply(steadyPods)
	pods := s.pods("app=steady", 2)
	before := containers(pods)
	url := "http://" + net.JoinHostPort(pods[0].Status.PodIP, "8080")
	s.get(s.node.Host.HTTP(), url)
	f := &faults{scene: s, client: ask(t, s.node.Host.HTTP(), url)}
	f.structure = f.lasting(t)

	for round := range faultRounds {
		rounds := []struct {
			name  string
			fault func(*testing.T)
		}{
			{"panic in cni.flannel", func(t *testing.T) { f.plugin(t, "cni.flannel", unix.SIGQUIT) }},
			{"kill -9 of runtime.containerd", func(t *testing.T) { f.plugin(t, "runtime.containerd", unix.SIGKILL) }},
			{"kill -9 of cni.flannel", func(t *testing.T) { f.plugin(t, "cni.flannel", unix.SIGKILL) }},
			{"kill -9 of the core", f.core},
		}
		for _, r := range rounds {
			ok := t.Run(fmt.Sprintf("%d/%s", round+1, r.name), func(t *testing.T) {
				f.client.sofar()
				r.fault(t)
				got := f.client.sofar()
				if len(got.failures) > 0 {
					t.Errorf("%d of %d requests to the pod failed: %v", len(got.failures), got.asked, got.failures)
				}
				t.Logf("the client asked %d times; the longest time between two answers was %s", got.asked, got.longest.Round(time.Millisecond))
				f.unchanged(t, before)
			})
			if !ok {
				t.Fatal("the next fault would say nothing new")
			}
		}
	}
	t.Logf("API back after kill -9 of the core: %s", spread(f.apiBack))
	if worst := slices.Max(f.apiBack); worst > apiBackLimit {
		t.Errorf("the API was once back only after %s, later than %s", worst, apiBackLimit)
	}
	for id, times := range f.pluginBack {
		t.Logf("%s ready again: %s", id, spread(times))
	}
	// After all that, new pods start as they did.
	s.kubectl("scale", "deployment/steady", "--replicas=4")
	s.pods("app=steady", 4)
}

type faults struct {
	*scene
	client     *asking
	structure  harness.Snapshot
	apiBack    []time.Duration
	pluginBack map[string][]time.Duration
}

// plugin sends a signal to a plugin and waits until it is ready again.
func (f *faults) plugin(t *testing.T, id string, signal unix.Signal) {
	ctx := within(t, pluginBackLimit)
	dead := f.node.Component(t, ctx, id)
	start := time.Now()
	if err := f.node.Host.Kill(dead.Pid, signal); err != nil {
		t.Fatal(err)
	}
	alive := waitComponent(t, ctx, f.node, id, func(c harness.Component) bool { return c.Pid != dead.Pid && c.Ready() })
	if f.pluginBack == nil {
		f.pluginBack = map[string][]time.Duration{}
	}
	f.pluginBack[id] = append(f.pluginBack[id], time.Since(start))
	if signal == unix.SIGQUIT && !strings.Contains(f.node.Logs(), "goroutine ") {
		t.Error("the stack of the crash is not in the log")
	}
	t.Logf("%s: process %d, then %d, ready after %s", id, dead.Pid, alive.Pid, time.Since(start).Round(time.Millisecond))
}

// core kills the core, sees that the plugins end with it, and starts it again.
func (f *faults) core(t *testing.T) {
	var plugins []int
	all, err := f.node.Components(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Pid != 0 {
			plugins = append(plugins, c.Pid)
		}
	}
	start := time.Now()
	f.node.Kill9()
	f.node.Restart(t)
	_, err = f.node.WaitAPI(within(t, 60*time.Second))
	back := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	f.apiBack = append(f.apiBack, back)
	t.Logf("API back after %s", back.Round(time.Millisecond))
	// The old plugins are gone, whatever the new core did meanwhile.
	_, err = eventually(within(t, lifelineLimit), func(context.Context) (any, error) {
		procs, err := f.node.Host.Processes()
		for _, p := range procs {
			if slices.Contains(plugins, p.Pid) {
				err = fmt.Errorf("plugin process %d outlived its core: %s", p.Pid, p.Cmdline)
			}
		}
		return nil, err
	})
	if err != nil {
		t.Error(err)
	}
	client, err := f.node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	f.scene.client = client
	for id := range all {
		waitComponent(t, within(t, pluginBackLimit), f.node, id, harness.Component.Ready)
	}
}

// unchanged sees that no container was restarted and that nothing was left over.
func (f *faults) unchanged(t *testing.T, before []string) {
	t.Helper()
	if now := containers(f.pods("app=steady", 2)); !slices.Equal(now, before) {
		t.Errorf("containers were %q and are %q", before, now)
	}
	var more harness.Snapshot
	_, err := eventually(within(t, 10*time.Second), func(context.Context) (any, error) {
		if more = f.lasting(t).Minus(f.structure); len(more) > 0 {
			return nil, fmt.Errorf("left over:\n%s", strings.Join(more, "\n"))
		}
		return nil, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// lasting is what a fault must not add to: mounts, interfaces, network namespaces and
// cgroups as they are, processes by name and number of their kind.
func (f *faults) lasting(t *testing.T) harness.Snapshot {
	t.Helper()
	all, err := f.node.Host.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var lasting harness.Snapshot
	kinds := map[string]int{}
	for _, line := range all {
		what, which, _ := strings.Cut(line, ": ")
		switch what {
		case "mount", "interface", "network namespace", "cgroup":
			lasting = append(lasting, line)
		case "process":
			if fields := strings.Fields(which); len(fields) > 1 && fields[1] != "kubectl" {
				kinds[fields[1]]++
				lasting = append(lasting, fmt.Sprintf("process number %d of %s", kinds[fields[1]], fields[1]))
			}
		}
	}
	return lasting
}

// waitComponent asks for the list of components until one is as wanted.
func waitComponent(t *testing.T, ctx context.Context, node *harness.Node, id string, is func(harness.Component) bool) harness.Component {
	t.Helper()
	c, err := eventually(ctx, func(ctx context.Context) (harness.Component, error) {
		all, err := node.Components(ctx)
		if err != nil {
			return harness.Component{}, err
		}
		if c, ok := all[id]; ok && is(c) {
			return c, nil
		}
		return harness.Component{}, fmt.Errorf("component %s is %+v", id, all[id])
	})
	if err != nil {
		t.Fatalf("wait for a component: %v", err)
	}
	return c
}

// containers are the IDs and restart counts of pods' containers.
func containers(pods []corev1.Pod) []string {
	var ids []string
	for _, p := range pods {
		for _, c := range p.Status.ContainerStatuses {
			ids = append(ids, p.Name+" "+c.ContainerID+" restarts="+strconv.Itoa(int(c.RestartCount)))
		}
	}
	slices.Sort(ids)
	return ids
}

// spread tells the median and the extremes.
func spread(times []time.Duration) string {
	if len(times) == 0 {
		return "never"
	}
	times = slices.Sorted(slices.Values(times))
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("median %s, least %s, most %s of %d", ms(times[len(times)/2]), ms(times[0]), ms(times[len(times)-1]), len(times))
}

// TestStopAndStart stops k3m, sees that the pods go on, and starts it again.
func TestStopAndStart(t *testing.T) {
	s := play(t)
	s.apply(steadyPods)
	s.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n")
	pods := s.pods("app=steady", 2)
	before := containers(pods)
	objects := s.kubectl("get", "configmap,deployment,replicaset,pod", "-o", uids)
	url := "http://" + net.JoinHostPort(pods[0].Status.PodIP, "8080")
	s.get(s.node.Host.HTTP(), url)

	client := ask(t, s.node.Host.HTTP(), url)
	took := s.node.Stop(t)
	t.Logf("stopped in %s", took.Round(time.Millisecond))
	for _, p := range mustProcesses(t, s.node.Host) {
		if strings.Contains(p.Cmdline, "k3m") && !strings.Contains(p.Cmdline, "containerd-shim") {
			t.Errorf("process %d goes on after a clean stop: %s", p.Pid, p.Cmdline)
		}
	}
	if _, err := os.Stat(s.node.Host.RunDir + "/server/admin.sock"); err == nil {
		t.Error("the status socket is left over after a clean stop")
	}
	s.get(s.node.Host.HTTP(), url)

	s.node.Restart(t)
	c, err := s.node.WaitReady(within(t, 60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s.client = c
	if got := client.stop(); len(got.failures) > 0 {
		t.Errorf("%d of %d requests to the pod failed over a stop and a start: %v", len(got.failures), got.asked, got.failures)
	}
	if now := containers(s.pods("app=steady", 2)); !slices.Equal(now, before) {
		t.Errorf("containers were %q and are %q", before, now)
	}
	if now := s.kubectl("get", "configmap,deployment,replicaset,pod", "-o", uids); now != objects {
		t.Errorf("objects were\n%s\nand are\n%s", objects, now)
	}
}

const uids = `jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.uid}{"\n"}{end}`

func mustProcesses(t *testing.T, h *harness.Host) []harness.Process {
	t.Helper()
	procs, err := h.Processes()
	if err != nil {
		t.Fatal(err)
	}
	return procs
}
