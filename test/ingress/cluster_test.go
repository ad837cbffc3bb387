package ingress

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/images"
)

// scene is a test's view of a cluster: one node, and a client on a host of its own.
type scene struct {
	*testing.T
	node   *harness.Node
	client *kubernetes.Clientset
	// outside is the host that requests come from, web its transport to the node's address.
	outside *harness.Host
	web     *http.Transport
	ns      string
}

// boot starts a node with a configuration file, and waits until the components are ready.
// What is in the file can be edited later.
func boot(t *testing.T, name, config string, components ...string) *scene {
	t.Helper()
	s := &scene{T: t, ns: "default", outside: lab.NewHost(t, name+"-client")}
	h := lab.NewHost(t, name)
	preload(t, h)
	if err := os.WriteFile(h.ConfigFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.node = h.Serve(t)
	s.web = s.outside.Transport(h.Addr)
	t.Cleanup(s.web.CloseIdleConnections)
	var err error
	if s.client, err = s.node.WaitReady(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, id := range components {
		s.component(id, harness.Component.Ready)
	}
	return s
}

// in is the scene in a subtest.
func (s *scene) in(t *testing.T) *scene {
	inner := *s
	inner.T = t
	return &inner
}

// address is the node's.
func (s *scene) address() netip.Addr { return s.node.Host.Addr }

// component waits until a component is as wanted; it is told of each change.
func (s *scene) component(id string, is func(harness.Component) bool) harness.Component {
	s.Helper()
	var last string
	found, err := s.watchComponents(func(all map[string]harness.Component) bool {
		c, ok := all[id]
		last = fmt.Sprintf("it is %+v", c)
		return ok && is(c)
	})
	if err != nil {
		s.Fatalf("wait for component %s: %v: %s", id, err, last)
	}
	return found[id]
}

// noComponent waits until the node has no such component.
func (s *scene) noComponent(id string) {
	s.Helper()
	_, err := s.watchComponents(func(all map[string]harness.Component) bool { _, ok := all[id]; return !ok })
	if err != nil {
		s.Fatalf("wait until there is no component %s: %v", id, err)
	}
}

func (s *scene) watchComponents(is func(map[string]harness.Component) bool) (map[string]harness.Component, error) {
	ctx, cancel := context.WithTimeoutCause(s.Context(), 2*patience, fmt.Errorf("not within %s", 2*patience))
	defer cancel()
	watch := s.node.Host.K3m(ctx, "status", "--watch", "-o", "json")
	pipe, err := watch.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := watch.Start(); err != nil {
		return nil, err
	}
	defer func() { _ = watch.Process.Signal(syscall.SIGTERM); _ = watch.Wait() }() // it ends as it was told to
	decoder := json.NewDecoder(bufio.NewReader(pipe))
	for {
		var report struct {
			Components []harness.Component `json:"components"`
		}
		if err := decoder.Decode(&report); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, err
		}
		all := map[string]harness.Component{}
		for _, c := range report.Components {
			all[c.ID] = c
		}
		if is(all) {
			return all, nil
		}
	}
}

// apply applies manifests with kubectl in the scene's namespace. ECHO and ECHO2 stand for the
// test images, $ADDRESS for the node's address.
func (s *scene) apply(manifests string) {
	s.Helper()
	manifests = strings.NewReplacer("ECHO2", images.Echo2, "ECHO", images.Echo, "$ADDRESS", s.address().String()).Replace(manifests)
	cmd := s.node.Host.K3m(within(s.T, patience), "kubectl", "--kubeconfig", s.node.Host.Kubeconfig, "-n", s.ns, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifests)
	if _, err := cmd.Output(); err != nil {
		s.Fatal(err)
	}
}

// kubectl runs kubectl in the scene's namespace and gives what it printed.
func (s *scene) kubectl(args ...string) string {
	s.Helper()
	out, err := s.node.Kubectl(within(s.T, 2*patience), append([]string{"-n", s.ns}, args...)...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// k3m runs k3m on the node, sees that it succeeds, and gives what it said.
func (s *scene) k3m(args ...string) string {
	s.Helper()
	out, err := s.node.Host.K3m(within(s.T, 2*patience), args...).CombinedOutput()
	if err != nil {
		s.Fatalf("k3m %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// ingresses creates Ingresses, written as YAML documents, in the scene's namespace, and
// deletes them when the test ends.
func (s *scene) ingresses(documents string) {
	s.Helper()
	for _, text := range strings.Split(documents, "\n---") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		ing := &networkingv1.Ingress{}
		if err := yaml.UnmarshalStrict([]byte(text), ing); err != nil {
			s.Fatalf("%v in %s", err, text)
		}
		s.create(ing)
	}
}

func (s *scene) create(ing *networkingv1.Ingress) {
	s.Helper()
	if _, err := s.client.NetworkingV1().Ingresses(s.ns).Create(within(s.T, patience), ing, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if s.Failed() {
			s.describe(ctx, "Ingress", ing.Name)
		}
		if err := s.client.NetworkingV1().Ingresses(s.ns).Delete(ctx, ing.Name, metav1.DeleteOptions{}); err != nil {
			s.Error(err)
		}
	})
}

// secret creates a Secret and deletes it when the test ends.
func (s *scene) secret(secret *corev1.Secret) {
	s.Helper()
	if _, err := s.client.CoreV1().Secrets(s.ns).Create(within(s.T, patience), secret, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.client.CoreV1().Secrets(s.ns).Delete(ctx, secret.Name, metav1.DeleteOptions{}); err != nil {
			s.Error(err)
		}
	})
}

// describe logs the Events about an object.
func (s *scene) describe(ctx context.Context, kind, name string) {
	events, err := s.client.CoreV1().Events(s.ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name})
	if err != nil {
		s.Log(err)
		return
	}
	for _, e := range events.Items {
		s.Logf("event: %s %s: %s: %s", kind, name, e.Reason, e.Message)
	}
}

// warned waits for a Warning about an object whose message has all the words.
func (s *scene) warned(kind, name string, words ...string) {
	s.Helper()
	_, err := harness.WaitAny(within(s.T, patience), s.client.CoreV1().Events(s.ns), "", func(e *corev1.Event) (bool, string) {
		if e.InvolvedObject.Kind != kind || e.InvolvedObject.Name != name || e.Type != corev1.EventTypeWarning {
			return false, "the last Event is not about it"
		}
		for _, w := range words {
			if !strings.Contains(e.Reason+": "+e.Message, w) {
				return false, e.Reason + ": " + e.Message
			}
		}
		return true, ""
	})
	if err != nil {
		s.Errorf("wait for a Warning about %s %s that says %q: %v", kind, name, words, err)
	}
}

// body reads an answer to its end.
func body(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(text), err
}
