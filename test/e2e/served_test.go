package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// TestServedByComponent runs the example component, which owns a Service and serves it, and looks
// at what the cluster makes of that.
func TestServedByComponent(t *testing.T) {
	h := lab.NewHost(t, "served")
	if err := h.LinkBundle(); err != nil {
		t.Fatal(err)
	}
	preload(t, h)
	if out, err := install(t, h, goBuild(t, "docs/examples/addon.whoami", "whoami")); err != nil {
		t.Fatalf("install whoami: %v: %s", err, out)
	}
	node := h.Serve(t)
	client, err := node.WaitReady(within(t, 90*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, node: node, client: client, ns: "default"}
	s.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: echo}\nspec: {terminationGracePeriodSeconds: 1, containers: [{name: echo, image: ECHO}]}\n")
	pod := s.pod("echo")
	mustK3m(t, h, "component", "enable", "addon.whoami")
	waitComponent(t, within(t, 30*time.Second), node, "addon.whoami", harness.Component.Ready)

	const direct = "http://10.42.0.1:8099/"
	want := fmt.Sprintf("component addon.whoami on node %s of cluster cluster.local\n", node.Name)
	var service string
	soon(t, "the Service answers a pod", func(ctx context.Context) error {
		found, err := client.CoreV1().Services("default").Get(ctx, "whoami", metav1.GetOptions{})
		if err != nil {
			return err
		}
		service = "http://" + found.Spec.ClusterIP + "/"
		body, err := harness.Get(ctx, h.HTTP(), "http://"+pod.Status.PodIP+":8080/fetch?url="+service)
		if err == nil && body != want {
			err = fmt.Errorf("a pod hears %q", body)
		}
		return err
	})
	t.Run("a neighbour gets no answer", func(t *testing.T) {
		remove, err := lab.Switch.Route(netip.MustParsePrefix("10.42.0.0/16"), h)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := remove(); err != nil {
				t.Error(err)
			}
		}()
		// The way itself is open: the API server listens there, too.
		if conn, err := lab.Switch.Dial(within(t, 5*time.Second), "tcp", "10.42.0.1:6443"); err != nil {
			t.Errorf("the pod gateway can't be reached at all: %v", err)
		} else {
			conn.Close()
		}
		if body, err := harness.Get(within(t, 2*time.Second), lab.Switch.HTTP(), direct); err == nil {
			t.Errorf("a neighbour hears %q", body)
		}
	})
	t.Run("its port is guarded", func(t *testing.T) {
		out, err := h.Command(within(t, 10*time.Second), "nft", "list", "ruleset").CombinedOutput()
		if err != nil || !strings.Contains(out, "10.42.0.1 . tcp . 8099") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("kubectl shows it", func(t *testing.T) {
		soon(t, "components are shown", func(ctx context.Context) error {
			out, err := node.Kubectl(ctx, "get", "components", "--no-headers")
			for _, id := range []string{"addon.whoami", "cni.flannel", "runtime.containerd"} {
				kind, name, _ := strings.Cut(id, ".")
				row := strings.Fields(out[max(0, strings.Index(out, id)):])
				if err == nil && (len(row) < 7 || row[0] != id || row[1] != kind || row[2] != name || row[5] != "Ready" || row[6] != "1/1") {
					err = fmt.Errorf("%s is not shown as ready:\n%s", id, out)
				}
			}
			return err
		})
	})
	t.Run("its metrics are the node's", func(t *testing.T) {
		out := s.kubectl("get", "--raw", "/api/v1/nodes/"+node.Name+"/proxy/metrics")
		for _, want := range []string{`whoami_answers_total{component="addon.whoami"} `, `k3m_component_up{component="addon.whoami"} 1`,
			`k3m_component_memory_bytes{component="runtime.containerd"} `, `k3m_component_cpu_seconds_total{component="cni.flannel"} `} {
			if !strings.Contains(out, want) {
				t.Errorf("the metrics lack %s", want)
			}
		}
	})
	t.Run("its death is told", func(t *testing.T) {
		pid := node.Component(t, within(t, 10*time.Second), "addon.whoami").Pid
		if out, err := h.Command(within(t, 10*time.Second), "kill", "-9", fmt.Sprint(pid)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		soon(t, "an Event tells of it", func(ctx context.Context) error {
			out, err := node.Kubectl(ctx, "describe", "comp", "addon.whoami")
			if err == nil && (!strings.Contains(out, "killed") || !strings.Contains(out, "ready again on node "+node.Name)) {
				err = errors.New(out)
			}
			return err
		})
		soon(t, "it serves again", func(ctx context.Context) error {
			_, err := harness.Get(ctx, h.HTTP(), "http://"+pod.Status.PodIP+":8080/fetch?url="+service)
			return err
		})
	})
	t.Run("nothing is left when it is disabled", func(t *testing.T) {
		mustK3m(t, h, "component", "disable", "--yes", "addon.whoami")
		soon(t, "its objects are gone", func(ctx context.Context) error {
			_, err := client.CoreV1().Services("default").Get(ctx, "whoami", metav1.GetOptions{})
			if !apierrors.IsNotFound(err) {
				return fmt.Errorf("the Service: %v", err)
			}
			if out, err := node.Kubectl(ctx, "get", "comp", "addon.whoami"); err == nil {
				return errors.New(out)
			}
			out, err := h.Command(ctx, "nft", "list", "ruleset").CombinedOutput()
			if err == nil && strings.Contains(out, "10.42.0.1 . tcp . 8099") {
				err = errors.New(out)
			}
			return err
		})
	})
}

// soon waits for what is told by nobody that a test could listen to.
func soon(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	_, err := eventually(within(t, 30*time.Second), func(ctx context.Context) (struct{}, error) { return struct{}{}, check(ctx) })
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func mustK3m(t *testing.T, h *harness.Host, args ...string) {
	t.Helper()
	if out, err := h.K3m(within(t, 60*time.Second), args...).CombinedOutput(); err != nil {
		t.Fatalf("k3m %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
