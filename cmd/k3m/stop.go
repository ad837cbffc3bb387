package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	criclient "k8s.io/cri-client/pkg"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
	"github.com/k3m-io/k3m/core/ledger"
)

// stopPatience is how long a server that was asked to stop may take: twice what it
// promises.
const stopPatience = 20 * time.Second

func stopCommand() *cobra.Command {
	var n node
	var pods bool
	var grace time.Duration
	c := &cobra.Command{
		Use:   "stop",
		Short: "Stop the server of this node, and its pods if asked to",
		Long: `Stop the server of this node. Its pods go on running, and the next server finds them.

With --kill-pods they end as well: their containers get SIGTERM, and SIGKILL after --grace;
then their mounts, interfaces and cgroups, and the packet filter rules of services and
policies are removed. Nothing else is: the next server starts all pods anew, as after a
reboot, with their volumes, images and logs. It also works when no server runs.

Where a service manager keeps the server, stop it there (systemctl stop k3m): else it may
be started again.`,
		Example: `  sudo k3m stop
  sudo systemctl stop k3m && sudo k3m stop --kill-pods`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if grace < 0 {
				return usageError{fmt.Errorf("--grace %s: give a time that is not negative", grace)}
			}
			if os.Geteuid() != 0 {
				return errors.New("stopping a node needs root; try sudo")
			}
			n.resolve()
			if _, err := os.Stat(controlplane.LockFile(n.dataDir)); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("no node keeps its state in %s; name its --data-dir", n.dataDir)
			}
			out := cmd.OutOrStdout()
			lock, err := stopServer(cmd.Context(), out, n.dataDir)
			if err != nil {
				return err
			}
			defer func() { _ = lock.Release() }() // the kernel does it anyway in a moment
			if !pods {
				fmt.Fprintln(out, "no server runs; pods keep running")
				return nil
			}
			return killPods(cmd.Context(), out, n, grace)
		},
	}
	addNodeFlags(c, &n)
	c.Flags().BoolVar(&pods, "kill-pods", false, "end the pods too, and remove what they and the network have on the host")
	c.Flags().DurationVar(&grace, "grace", 10*time.Second, "with --kill-pods: how long containers may take to end by themselves")
	return c
}

// killPods ends all pods and removes what is on the host because of them. The caller holds the
// data directory's lock.
func killPods(ctx context.Context, out io.Writer, n node, grace time.Duration) error {
	made, err := ledger.Read(n.dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	killed, err := endSandboxes(ctx, n, grace)
	if err != nil {
		return fmt.Errorf("end the pods: %w", err)
	}
	fmt.Fprintf(out, "ended %s\n", count(killed, "pod"))
	// What is left of the network goes as when its components are disabled: without the pods'
	// own data, which is in the runtime's and the storage's keeping.
	network := func(e components.Entry) bool { return e.Info.Kind == "cni" || e.Info.Kind == "network-policy" }
	if err := errors.Join(
		cleanComponents(ctx, n, &made, network),
		agent.CleanupPods(ctx, agent.Options{DataDir: n.dataDir, CgroupRoot: kubeletCgroupRoot(n.dataDir)}),
	); err != nil {
		return err
	}
	fmt.Fprintln(out, "removed their mounts, interfaces and cgroups, and the rules of services and policies")
	return nil
}

// runtimePatience is how long a runtime may take to come up, and each pod, beyond its grace, to go.
const runtimePatience = 60 * time.Second

// endSandboxes runs the node's runtime, and it alone, to have it end and remove all pods: it knows
// them, and takes down their networks and mounts.
func endSandboxes(ctx context.Context, n node, grace time.Duration) (ended int, err error) {
	dir, err := bundle.Dir()
	if err != nil {
		return 0, err
	}
	catalog, err := components.Discover(dir, n.dataDir)
	if err != nil {
		return 0, err
	}
	for _, entry := range catalog.Entries() {
		if entry.Info.Kind != "runtime" || !hasState(n, entry.ID()) {
			continue
		}
		p := &plan{cfg: &config.Config{DataDir: n.dataDir, RunDir: n.runDir}, bundle: dir}
		gone, err := endSandboxesOf(ctx, components.NewSupervisor(components.Options{
			Selection: components.Selection{Entries: []components.Entry{entry}},
			Launcher:  p.launcher(),
			DataDir:   n.dataDir, RunDir: n.runDir, CgroupParent: cgroupParent(n.dataDir),
			Facts:  p.facts,
			Logger: hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Error}),
		}), grace)
		ended += gone
		if err != nil {
			return ended, fmt.Errorf("%s: %w", entry.ID(), err)
		}
	}
	return ended, nil
}

func hasState(n node, id string) bool {
	_, err := os.Stat(componentDir(n.dataDir, id))
	return err == nil
}

func endSandboxesOf(ctx context.Context, s *components.Supervisor, grace time.Duration) (ended int, err error) {
	ctx, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- s.Run(ctx) }()
	defer func() {
		stop()
		if failed := <-stopped; err == nil {
			err = failed
		}
	}()
	up, cancel := context.WithTimeout(ctx, runtimePatience)
	defer cancel()
	endpoint, err := s.Runtime(up)
	if err != nil {
		return 0, err
	}
	runtime, err := criclient.NewRemoteRuntimeServiceBuilder().WithEndpoint(endpoint).WithConnectionTimeout(runtimePatience).WithTracerProvider(nil).Build(ctx)
	if err != nil {
		return 0, err
	}
	containers, err := runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}})
	if err != nil {
		return 0, err
	}
	// All at once: most of the time they only use up their grace.
	var ending errgroup.Group
	ending.SetLimit(atOnce)
	for _, c := range containers {
		ending.Go(func() error { return runtime.StopContainer(ctx, c.Id, int64(grace.Seconds())) })
	}
	if err := ending.Wait(); err != nil {
		return 0, err
	}
	sandboxes, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return 0, err
	}
	var removing errgroup.Group
	removing.SetLimit(atOnce)
	for _, sandbox := range sandboxes {
		removing.Go(func() error {
			if err := runtime.StopPodSandbox(ctx, sandbox.Id); err != nil {
				return err
			}
			return runtime.RemovePodSandbox(ctx, sandbox.Id)
		})
	}
	return len(sandboxes), removing.Wait()
}

// atOnce is how many pods are ended at the same time: a node's usual limit.
const atOnce = 110

// stopServer asks a server that runs to stop and takes its place.
func stopServer(ctx context.Context, out io.Writer, dataDir string) (*datastore.Lock, error) {
	file := controlplane.LockFile(dataDir)
	lock, err := datastore.AcquireLock(file)
	var locked *datastore.LockedError
	if !errors.As(err, &locked) {
		return lock, err
	}
	if locked.PID == 0 {
		return nil, fmt.Errorf("a server runs, but %s does not say which process it is; stop it first", file)
	}
	// A descriptor of the process: its number can't come to mean another one while we wait.
	fd, err := unix.PidfdOpen(locked.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("stop the server, process %d: %w", locked.PID, err)
	}
	defer unix.Close(fd)
	fmt.Fprintf(out, "stopping the server, process %d\n", locked.PID)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return nil, fmt.Errorf("stop the server, process %d: %w", locked.PID, err)
	}
	if err := awaitExit(ctx, fd); err != nil {
		return nil, fmt.Errorf("stop the server, process %d: %w", locked.PID, err)
	}
	return datastore.AcquireLock(file)
}

// awaitExit waits until the process of a pidfd has ended: the descriptor is readable then.
func awaitExit(ctx context.Context, fd int) error {
	deadline := time.Now().Add(stopPatience)
	for {
		wait := time.Until(deadline)
		if wait <= 0 {
			return fmt.Errorf("it did not end within %s", stopPatience)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(min(wait, time.Second).Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}
