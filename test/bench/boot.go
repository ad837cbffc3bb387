package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images"
)

// size is what the distribution takes on disk.
type size struct {
	ExecutableBytes int64 `json:"executableBytes"`
	UnpackedBytes   int64 `json:"unpackedBytes"`
}

// measureFile unpacks the file into empty directories. Unpacking is the time of a
// sub-command's first run less that of its second.
func measureFile(lab *harness.Lab, tb harness.TB, runs int) (size, stats, string, error) {
	var s size
	var times []time.Duration
	var version string
	st, err := os.Stat(lab.Dist)
	if err != nil {
		return s, stats{}, "", err
	}
	s.ExecutableBytes = st.Size()
	for range runs {
		h := lab.NewHost(tb, "unpack")
		var took [2]time.Duration
		for i := range took {
			start := time.Now()
			out, err := h.K3m(context.Background(), "version").Output()
			if err != nil {
				return s, stats{}, "", err
			}
			took[i], version = time.Since(start), strings.TrimSpace(out)
		}
		times = append(times, took[0]-took[1])
		if s.UnpackedBytes, err = bytesBelow(filepath.Join(h.DataDir, "data")); err != nil {
			return s, stats{}, "", err
		}
		if err := os.RemoveAll(h.DataDir); err != nil {
			return s, stats{}, "", err
		}
	}
	return s, sumUp(times), version, nil
}

func bytesBelow(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// boot holds the times from the start of the process, in seconds.
type boot struct {
	What      string `json:"what"`
	APIReady  stats  `json:"apiReadySeconds"`
	NodeReady stats  `json:"nodeReadySeconds"`
	AllReady  stats  `json:"allComponentsReadySeconds"`
	FirstPod  stats  `json:"firstPodRunningSeconds"`
	Stop      stats  `json:"stopSeconds"`
}

type bootTimes struct{ api, node, all, pod, stop time.Duration }

func measureBoots(lab *harness.Lab, tb harness.TB, runs int) (boot, error) {
	b := boot{What: "k3m server on an empty data directory, already unpacked; the first pod is that of a Deployment made when the API is ready, its image a preloaded archive"}
	archives, err := buildImages(lab)
	if err != nil {
		return b, err
	}
	var api, node, all, pod, stop []time.Duration
	for run := range runs {
		own := &harness.Bench{} // the host of one run ends with it
		times, err := bootOnce(lab, own, archives)
		own.Close()
		if err != nil {
			return b, fmt.Errorf("boot %d: %w", run+1, err)
		}
		if own.Failed() {
			tb.Errorf("boot %d failed", run+1)
		}
		tb.Logf("boot %d: API %s, node %s, all components %s, pod %s", run+1, times.api, times.node, times.all, times.pod)
		api, node, all = append(api, times.api), append(node, times.node), append(all, times.all)
		pod, stop = append(pod, times.pod), append(stop, times.stop)
	}
	b.APIReady, b.NodeReady, b.AllReady, b.FirstPod, b.Stop = sumUp(api), sumUp(node), sumUp(all), sumUp(pod), sumUp(stop)
	return b, nil
}

func buildImages(lab *harness.Lab) (string, error) {
	root, err := harness.Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(lab.Dir, "images")
	return dir, images.Build(context.Background(), dir, filepath.Join(root, "test", "images"))
}

func bootOnce(lab *harness.Lab, tb harness.TB, archives string) (bootTimes, error) {
	var times bootTimes
	ctx, cancel := context.WithTimeoutCause(context.Background(), 2*time.Minute, fmt.Errorf("not within two minutes"))
	defer cancel()
	h := lab.NewHost(tb, "boot")
	if err := os.CopyFS(filepath.Join(h.DataDir, "agent", "images"), os.DirFS(archives)); err != nil {
		return times, err
	}
	n := h.Serve(tb)
	if err := waitReadyz(ctx, n); err != nil {
		return times, err
	}
	times.api = time.Since(n.Started)
	client, err := n.WaitAPI(ctx)
	if err != nil {
		return times, err
	}
	var events errgroup.Group
	events.Go(func() error {
		_, err := waitComponents(ctx, n, allReady)
		times.all = time.Since(n.Started)
		return err
	})
	events.Go(func() error {
		err := firstPod(ctx, client)
		times.pod = time.Since(n.Started)
		return err
	})
	events.Go(func() error {
		_, err := n.WaitReady(ctx)
		times.node = time.Since(n.Started)
		return err
	})
	if err := events.Wait(); err != nil {
		return times, err
	}
	times.stop = n.Stop(tb)
	return times, nil
}

// waitReadyz asks as nobody, who may know whether the API is ready.
func waitReadyz(ctx context.Context, n *harness.Node) error {
	client := n.Host.HTTP()
	client.Timeout = time.Second
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // nothing is sent
	url := fmt.Sprintf("https://%s:6443/readyz", n.Host.Addr)
	for {
		if _, err := harness.Get(ctx, client, url); err == nil {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-n.Done():
			return fmt.Errorf("k3m has ended: %s", n.Logs())
		case <-ctx.Done():
			return fmt.Errorf("wait for the API: %w", context.Cause(ctx))
		}
	}
}

// firstPod makes a Deployment and waits until its pod runs.
func firstPod(ctx context.Context, client *kubernetes.Clientset) error {
	// The API makes its first namespaces some moments after it is ready.
	err := harness.Wait(ctx, client.CoreV1().Namespaces(), "default", func(*corev1.Namespace) (bool, string) { return true, "" })
	if err != nil {
		return err
	}
	labels, grace := map[string]string{"app": "first"}, int64(1)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "first"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: &grace,
					Containers:                    []corev1.Container{{Name: "echo", Image: images.Echo}},
				},
			},
		},
	}
	if _, err := client.AppsV1().Deployments("default").Create(ctx, deployment, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err = harness.WaitAny(ctx, client.CoreV1().Pods("default"), "app=first", func(p *corev1.Pod) (bool, string) {
		return p.Status.Phase == corev1.PodRunning, p.Status.String()
	})
	return err
}
