package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images"
)

var (
	lab    *harness.Lab
	shared struct {
		once sync.Once
		tb   harness.Bench // outlives the test that was first to want the cluster
		node *harness.Node
		err  error
	}
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(func() int { return run(m) }))
}

func run(m *testing.M) (code int) {
	flag.Parse()
	// What runs side by side mostly waits. A node takes some 32 of the 128 inotify instances
	// that a user has by default, and the shared cluster is there as well.
	if parallel := flag.Lookup("test.parallel"); parallel != nil {
		if err := parallel.Value.Set("2"); err != nil {
			panic(err)
		}
	}
	var err error
	if lab, err = harness.Open(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := lab.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}()
	code = m.Run()
	if code != 0 {
		shared.tb.Errorf("a test failed: keep the logs of the shared cluster")
	}
	shared.tb.Close()
	if shared.tb.Failed() {
		code = 1
	}
	return code
}

// cluster is the shared cluster: one node, Ready, with the test images.
func cluster(t *testing.T) (*harness.Node, *kubernetes.Clientset) {
	t.Helper()
	shared.once.Do(func() {
		defer func() {
			if abort, ok := recover().(harness.Abort); ok {
				shared.err = fmt.Errorf("%s", abort.Reason)
			}
		}()
		host := lab.NewHost(&shared.tb, "n1")
		preload(&shared.tb, host)
		host.Env = []string{"ONLY_FOR_THE_CORE=1"}
		shared.node = host.Serve(&shared.tb)
		_, shared.err = shared.node.WaitReady(within(t, 60*time.Second))
	})
	if shared.err != nil {
		t.Fatalf("the shared cluster: %v", shared.err)
	}
	client, err := shared.node.WaitReady(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return shared.node, client
}

var archives struct {
	once sync.Once
	dir  string
	err  error
}

// preload puts the test images where a node finds them.
func preload(tb harness.TB, h *harness.Host) {
	tb.Helper()
	archives.once.Do(func() {
		archives.dir = filepath.Join(lab.Dir, "images")
		var root string
		if root, archives.err = harness.Root(); archives.err == nil {
			archives.err = images.Build(context.Background(), archives.dir, filepath.Join(root, "test", "images"))
		}
	})
	if archives.err != nil {
		tb.Fatalf("%v", archives.err)
	}
	dir := filepath.Join(h.DataDir, "agent", "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatalf("%v", err)
	}
	if err := os.CopyFS(dir, os.DirFS(archives.dir)); err != nil {
		tb.Fatalf("%v", err)
	}
}

// within is a context that ends after d, or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("not within %s", d))
	t.Cleanup(cancel)
	return ctx
}

// namespace makes a namespace for the test and removes it afterwards.
func namespace(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "Test")))
	ctx := within(t, 20*time.Second)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if t.Failed() {
			describe(ctx, t, client, name)
		}
		if err := client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	err := harness.Wait(ctx, client.CoreV1().ServiceAccounts(name), "default", func(*corev1.ServiceAccount) (bool, string) { return true, "" })
	if err != nil {
		t.Fatalf("wait for the namespace's service account: %v", err)
	}
	return name
}

// describe logs what a failed test's namespace holds.
func describe(ctx context.Context, t *testing.T, client kubernetes.Interface, ns string) {
	pods, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Log(err)
		return
	}
	for _, p := range pods.Items {
		t.Logf("pod %s: %s %s", p.Name, p.Status.Phase, podStory(&p))
	}
	events, err := client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, e := range events.Items {
		t.Logf("event: %s %s: %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
}

// podStory says why a pod is not ready.
func podStory(p *corev1.Pod) string {
	var story []string
	for _, c := range p.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Message != "" {
			story = append(story, string(c.Type)+": "+c.Message)
		}
	}
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if w := c.State.Waiting; w != nil {
			story = append(story, c.Name+": "+w.Reason+" "+w.Message)
		}
		if x := c.State.Terminated; x != nil {
			story = append(story, fmt.Sprintf("%s: exit code %d: %s", c.Name, x.ExitCode, x.Message))
		}
	}
	return strings.Join(story, "; ")
}
