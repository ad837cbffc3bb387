package clustercomponents_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/core/clustercomponents"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// What a node says last, when its components stop with it, gets into the API before the runs end.
func TestLastWord(t *testing.T) {
	c, stopCluster := keep(t, dns())
	node := addNode(t, "last-1", "10.42.31.0/24")
	node.live()
	node.says(answers("Ready", "10.42.31.1"))
	wantServed(t, "test-dns", "10.42.31.1@last-1->last-1")
	for range 20 { // more than what is written at once
		node.says(answers("Backoff"))
		node.says(answers("Ready", "10.42.31.1"))
	}
	node.says(answers("Stopped"))
	node.stop()
	c.Withdraw("last-1")
	stopCluster()
	object, err := objects.Resource(resource("nodecomponents")).Get(t.Context(), "last-1", metav1.GetOptions{})
	if err != nil || !strings.Contains(fmt.Sprint(object.Object["status"]), "state:Stopped") {
		t.Errorf("the node says %v, %v", object, err)
	}
	if got, err := served(t.Context(), "test-dns"); err != nil || len(got) > 0 {
		t.Errorf("endpoints %v, %v", got, err)
	}
}

// What one node says many times, or at length, counts once and is cut.
func TestANodeThatSaysTooMuch(t *testing.T) {
	keep(t, dns())
	loud := addNode(t, "loud-1", "10.42.31.0/24", "192.0.2.31")
	loud.live()
	says := answers("Ready", "10.42.31.1")
	say := func(change func(*nodestatus.ComponentState)) error {
		status := answers("Ready", "10.42.31.1")
		change(&status.Components[0])
		node, err := client.CoreV1().Nodes().Get(t.Context(), "loud-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return clustercomponents.WriteAs(t.Context(), loud.writer, status, node.UID)
	}
	for what, change := range map[string]func(*nodestatus.ComponentState){
		"an address twice":       func(c *nodestatus.ComponentState) { c.Endpoints[0].Addresses = []string{"10.42.31.1", "10.42.31.1"} },
		"an address that isn't":  func(c *nodestatus.ComponentState) { c.Endpoints[0].Addresses = []string{"10.42.31.1; rm"} },
		"more endpoints than 64": func(c *nodestatus.ComponentState) { c.Endpoints = slices.Repeat(c.Endpoints, 65) },
	} {
		if err := say(change); err == nil {
			t.Errorf("%s was not refused", what)
		}
	}
	twice := says
	twice.Components = slices.Repeat(says.Components, 2)
	raw, err := json.Marshal(map[string]any{
		"apiVersion": "k3m.io/v1alpha1", "kind": "NodeComponents", "metadata": map[string]any{"name": "loud-2"}, "status": twice})
	if err != nil {
		t.Fatal(err)
	}
	var forged unstructured.Unstructured
	if err := forged.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	if _, err := objects.Resource(resource("nodecomponents")).Create(t.Context(), &forged, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a component twice: %v", err)
	}
	says.Components[0].Endpoints = slices.Repeat(says.Components[0].Endpoints, 64)
	more := says.Components[0].Endpoints[0] // the same address and port among other ports
	more.Ports = append([]nodestatus.Port{{Name: "more", Protocol: "TCP", Port: 54}}, more.Ports...)
	says.Components[0].Endpoints[63] = more
	says.Components[0].LastError = strings.Repeat("é", 5000)
	loud.says(says)
	wantComponent(t, "dns.test", func(c nodestatus.Component) error {
		if c.Status.Ready != "1/1" || !strings.HasPrefix(c.Status.LastError, "éé") || len(c.Status.Nodes[0].LastError) > 1030 {
			return fmt.Errorf("%s, an error of %d bytes", c.Status.Ready, len(c.Status.LastError))
		}
		return nil
	})
	wantServed(t, "test-dns", "10.42.31.1@loud-1->loud-1")
}

func TestNodesWriteTheirOwn(t *testing.T) {
	keep(t)
	one := addNode(t, "own-1", "10.42.11.0/24")
	addNode(t, "own-2", "10.42.12.0/24")
	one.says(answers("Ready"))
	eventually(t, "what the node says", func(ctx context.Context) error {
		_, err := objects.Resource(resource("nodecomponents")).Get(ctx, "own-1", metav1.GetOptions{})
		return err
	})
	t.Run("and nobody else's", func(t *testing.T) {
		asOne := rest.CopyConfig(admin)
		asOne.Impersonate = rest.ImpersonationConfig{UserName: "system:node:own-1", Groups: []string{"system:nodes", "system:authenticated"}}
		forged, err := clustercomponents.NewNode(clustercomponents.NodeOptions{
			Config: asOne, Name: "own-2", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		err = clustercomponents.WriteAs(t.Context(), forged, answers("Ready"), "some-uid")
		if err == nil || !strings.Contains(err.Error(), "of its own name alone") {
			t.Errorf("own-1 writes as own-2: %v", err)
		}
	})
	t.Run("again when it was removed", func(t *testing.T) {
		before, err := objects.Resource(resource("nodecomponents")).Get(t.Context(), "own-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := objects.Resource(resource("nodecomponents")).Delete(t.Context(), "own-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is there again", func(ctx context.Context) error {
			after, err := objects.Resource(resource("nodecomponents")).Get(ctx, "own-1", metav1.GetOptions{})
			if err == nil && after.GetUID() == before.GetUID() {
				err = errors.New("it is the old one")
			}
			return err
		})
	})
	t.Run("on change alone", func(t *testing.T) {
		generation := func() int64 {
			o, err := objects.Resource(resource("nodecomponents")).Get(t.Context(), "own-1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return o.GetGeneration()
		}
		before := generation()
		since := time.Now()
		for n := range 50 { // the last one counts
			one.writer.Update(func(s *nodestatus.NodeStatus) {
				s.Components = slices.Clone(s.Components)
				s.Components[0].Since, s.Components[0].Restarts = since, n
			})
		}
		eventually(t, "the last change", func(ctx context.Context) error {
			o, err := objects.Resource(resource("nodecomponents")).Get(ctx, "own-1", metav1.GetOptions{})
			if err == nil && !strings.Contains(fmt.Sprint(o.Object["status"]), "restarts:49") {
				err = fmt.Errorf("%v", o.Object["status"])
			}
			return err
		})
		if writes := generation() - before; writes > 6 {
			t.Errorf("50 changes in a row were %d writes", writes)
		}
	})
}

func TestEvents(t *testing.T) {
	keep(t, dns())
	node := addNode(t, "event-1", "10.42.21.0/24")
	node.live()
	node.says(answers("Ready"))
	wantComponent(t, "dns.test", wantState("Ready", "1/1"))
	broken := answers("Refused")
	broken.Components[0].Reason = "its file has changed"
	node.says(broken)
	wantComponent(t, "dns.test", wantState("Refused", "0/1"))
	node.says(answers("Ready"))
	wantComponent(t, "dns.test", wantState("Ready", "1/1"))
	killed := answers("Ready") // so quickly that nobody saw it down
	killed.Components[0].Restarts, killed.Components[0].LastError, killed.Components[0].LastErrorTime = 1, "it was killed", time.Now()
	node.says(killed)
	uid := wantComponent(t, "dns.test", func(c nodestatus.Component) error {
		if c.Status.Restarts != 1 {
			return fmt.Errorf("%+v", c.Status)
		}
		return nil
	})
	eventually(t, "Events", func(ctx context.Context) error {
		list, err := client.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(uid)})
		if err != nil {
			return err
		}
		var got []string
		for _, e := range list.Items {
			got = append(got, fmt.Sprintf("%s %s (%d): %s", e.Type, e.Reason, e.Count, e.Message))
		}
		slices.Sort(got)
		want := []string{
			"Normal Ready (2): ready again on node event-1", "Warning Failed (1): on node event-1: it was killed",
			"Warning Refused (1): on node event-1: its file has changed",
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		return nil
	})
}
