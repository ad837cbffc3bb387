package manifests_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/core/manifests"
	"github.com/k3m-io/k3m/test/apiserver"
)

// world is an API server and a folder.
type world struct {
	t      *testing.T
	config *rest.Config
	client kubernetes.Interface
	kinds  dynamic.Interface
	dir    string
	board  *health.Board
	stop   func()
}

// start runs a keeper until stop is called, or the test ends.
func (w *world) start() {
	w.t.Helper()
	w.board = health.NewBoard()
	k, err := manifests.New(manifests.Options{
		Dir: w.dir, Node: "server-1", Config: w.config, Health: w.board, Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(w.stop)
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) until(what string, check func(context.Context) error) {
	w.t.Helper()
	last := errors.New("never asked")
	err := wait.PollUntilContextTimeout(w.t.Context(), 20*time.Millisecond, 45*time.Second, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		w.t.Fatalf("%s: %v", what, last)
	}
}

// has waits until a ConfigMap holds a value.
func (w *world) has(name, value string) {
	w.t.Helper()
	w.until("ConfigMap "+name, func(ctx context.Context) error {
		cm, err := w.client.CoreV1().ConfigMaps("default").Get(ctx, name, metav1.GetOptions{})
		if err == nil && cm.Data["v"] != value {
			err = fmt.Errorf("it holds %v", cm.Data)
		}
		return err
	})
}

func (w *world) lacks(name string) {
	w.t.Helper()
	w.until("no ConfigMap "+name, func(ctx context.Context) error {
		_, err := w.client.CoreV1().ConfigMaps("default").Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}

// says waits until the board says something of the manifests.
func (w *world) says(state health.State, words ...string) {
	w.t.Helper()
	w.until("the health board", func(context.Context) error {
		for _, c := range w.board.Conditions() {
			ok := c.Part == "manifests" && c.State == state
			for _, word := range words {
				ok = ok && strings.Contains(c.Message, word)
			}
			if ok {
				return nil
			}
		}
		return fmt.Errorf("it says %+v", w.board.Conditions())
	})
}

func (w *world) manifest(name string) map[string]any {
	w.t.Helper()
	o, err := w.kinds.Resource(schema.GroupVersionResource{Group: "k3m.io", Version: "v1alpha1", Resource: "manifests"}).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	status, _, _ := unstructured.NestedMap(o.Object, "status")
	return status
}

func configMap(name, value string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {v: %q}\n", name, value)
}

const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
`

const gadget = "---\napiVersion: example.org/v1\nkind: Gadget\nmetadata: {name: %s}\nspec: {size: 1}\n"

// TestKeeper is one story, since an API server takes a while to start and a process can have one.
func TestKeeper(t *testing.T) {
	config := apiserver.Start(t)
	w := &world{
		t: t, config: config, client: kubernetes.NewForConfigOrDie(config), kinds: dynamic.NewForConfigOrDie(config),
		dir: filepath.Join(t.TempDir(), "manifests"),
	}
	w.until("the namespace default", func(ctx context.Context) error {
		_, err := w.client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	w.start()
	step := func(name string, do func()) {
		t.Helper()
		t.Log("--- " + name)
		do()
	}

	step("a file is applied, and told of", func() {
		w.write("a.yaml", configMap("a1", "1")+configMap("a2", "1"))
		w.has("a1", "1")
		w.has("a2", "1")
		w.says(health.OK, "objects: 2, from files: 1")
		if s := w.manifest("a.yaml"); s["state"] != "Applied" || s["applied"] != "2/2" || len(s["objects"].([]any)) != 2 {
			t.Errorf("its Manifest says %v", s)
		}
	})
	step("a change of it is applied, what has left it goes", func() {
		w.write("a.yaml", configMap("a1", "2"))
		w.has("a1", "2")
		w.lacks("a2")
	})
	step("drift is mended", func() {
		maps := w.client.CoreV1().ConfigMaps("default")
		cm, err := maps.Get(t.Context(), "a1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cm.Data["v"], cm.Data["mine"] = "changed", "kept"
		if _, err := maps.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.has("a1", "2")
		if cm, err = maps.Get(t.Context(), "a1", metav1.GetOptions{}); err != nil || cm.Data["mine"] != "kept" {
			t.Errorf("what the file says nothing of is %v, %v", cm.Data, err)
		}
		if err := maps.Delete(t.Context(), "a1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.has("a1", "2")
	})
	step("a definition and its object in one file, in a folder", func() {
		w.write("sub/deep/gadget.yaml", fmt.Sprintf(gadget, "g1")+"---"+definition)
		gadgets := w.kinds.Resource(schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "gadgets"}).Namespace("default")
		w.until("the gadget", func(ctx context.Context) error {
			_, err := gadgets.Get(ctx, "g1", metav1.GetOptions{})
			return err
		})
		w.says(health.OK, "objects: 3, from files: 2")
	})
	step("broken files don't stop others, and lose nothing", func() {
		w.write("a.yaml", configMap("a1", "2")+"---\nkind: [\n")
		w.write("b.yaml", configMap("b1", "1")+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b2}\ndatta: {}\n")
		w.write("c.yaml", configMap("c1", "1"))
		w.has("b1", "1")
		w.has("c1", "1")
		w.says(health.Degraded, "a.yaml:", "b.yaml:7:", ".datta: field not declared in schema")
		w.has("a1", "2")
		if s := w.manifest("b.yaml"); s["state"] != "Failed" || s["applied"] != "1/2" || !strings.Contains(fmt.Sprint(s["message"]), "b.yaml:7") {
			t.Errorf("its Manifest says %v", s)
		}
		w.until("an Event", func(ctx context.Context) error {
			events, err := w.client.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Manifest,involvedObject.name=a.yaml,type=Warning"})
			if err == nil && len(events.Items) == 0 {
				err = errors.New("there is none")
			}
			return err
		})
		// And while it is broken, what it had is kept.
		if err := w.client.CoreV1().ConfigMaps("default").Delete(t.Context(), "a1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.has("a1", "2")
		w.write("a.yaml", configMap("a1", "3"))
		w.write("b.yaml", configMap("b1", "1"))
		w.says(health.OK)
		w.has("a1", "3")
	})
	step("an object moves from file to file", func() {
		before, err := w.client.CoreV1().ConfigMaps("default").Get(t.Context(), "c1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		w.write("d.yaml", configMap("c1", "1"))
		w.says(health.Degraded, "d.yaml:2: ConfigMap c1 is in c.yaml too")
		w.remove("c.yaml")
		w.says(health.OK)
		after, err := w.client.CoreV1().ConfigMaps("default").Get(t.Context(), "c1", metav1.GetOptions{})
		if err != nil || after.UID != before.UID {
			t.Errorf("it is not what it was: %v", err)
		}
	})
	step("skipped files are left alone", func() {
		w.write("d.yaml.skip", "")
		w.until("the state Skipped", func(context.Context) error {
			if s := w.manifest("d.yaml"); s["state"] != "Skipped" {
				return fmt.Errorf("it is %v", s)
			}
			return nil
		})
		w.remove("d.yaml")
		w.write("e.yaml", configMap("e1", "1")) // seen after the removal
		w.has("e1", "1")
		w.has("c1", "1")
		w.remove("d.yaml.skip")
		w.lacks("c1")
	})
	step("a component's object stays the component's", func() {
		labelled := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Labels: map[string]string{"k3m.io/component": "dns.coredns"}}, Data: map[string]string{"v": "theirs"}}
		if _, err := w.client.CoreV1().ConfigMaps("default").Create(t.Context(), labelled, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.write("e.yaml", configMap("e1", "1")+configMap("theirs", "mine"))
		w.says(health.Degraded, "it belongs to component dns.coredns")
		w.has("theirs", "theirs")
		w.write("e.yaml", configMap("e1", "1"))
		w.says(health.OK)
	})
	step("what changes while no server runs is made up for", func() {
		w.stop()
		w.remove("b.yaml")
		w.write("a.yaml", configMap("a1", "4")+configMap("a3", "1"))
		w.write("e.yaml", "kind: [\n")
		if err := w.client.CoreV1().ConfigMaps("default").Delete(t.Context(), "a1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.has("a1", "4")
		w.has("a3", "1")
		w.lacks("b1")
		w.says(health.Degraded, "e.yaml:")
		w.has("e1", "1")
		w.remove("e.yaml")
		w.lacks("e1")
	})
	step("a definition stays as long as there are other objects of it", func() {
		gadgets := w.kinds.Resource(schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "gadgets"}).Namespace("default")
		mine := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.org/v1", "kind": "Gadget", "metadata": map[string]any{"name": "mine"}}}
		if _, err := gadgets.Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.remove("sub/deep/gadget.yaml")
		w.says(health.Degraded, "sub/deep/gadget.yaml has gone", "delete them first")
		if _, err := gadgets.Get(t.Context(), "g1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the file's own: %v", err)
		}
		if err := gadgets.Delete(t.Context(), "mine", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.until("the definition goes", func(ctx context.Context) error {
			_, err := w.kinds.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).Get(ctx, "gadgets.example.org", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("it is there: %w", err)
		})
		w.says(health.OK, "objects: 2, from files: 1")
	})
	step("the last file goes, and the board is silent", func() {
		w.remove("a.yaml")
		w.lacks("a1")
		w.until("an empty board", func(context.Context) error {
			if c := w.board.Conditions(); len(c) > 0 {
				return fmt.Errorf("it says %+v", c)
			}
			return nil
		})
	})
}
