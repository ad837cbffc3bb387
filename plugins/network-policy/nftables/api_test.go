package nftables

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// object is what the fake API keeps.
type object interface {
	metav1.Object
}

// fakeAPI is the part of the Kubernetes API that the component uses, over HTTP: list and
// watch of six resources. The real one runs in the end-to-end tests.
type fakeAPI struct {
	server *httptest.Server

	mu      sync.Mutex
	version int
	objects map[string]map[string]object // by path of the resource, by namespace and name
	events  map[string][]versioned
	changed chan struct{} // closed and replaced at each change
	lists   int           // of pods, by node
}

type versioned struct {
	version int
	event   metav1.WatchEvent
}

// The resources by path, with the kind that their objects have.
var kinds = map[string]string{
	"/api/v1/pods":       "Pod",
	"/api/v1/namespaces": "Namespace",
	"/apis/networking.k8s.io/v1/networkpolicies": "NetworkPolicy",
	"/api/v1/nodes":                        "Node",
	"/apis/k3m.io/v1alpha1/nodecomponents": "NodeComponents",
	"/apis/k3m.io/v1alpha1/components":     "Component",
}

func pathOf(o object) string {
	switch o.(type) {
	case *corev1.Pod:
		return "/api/v1/pods"
	case *corev1.Namespace:
		return "/api/v1/namespaces"
	case *corev1.Node:
		return "/api/v1/nodes"
	case *clusterComponent:
		return "/apis/k3m.io/v1alpha1/components"
	case *nodeComponents:
		return "/apis/k3m.io/v1alpha1/nodecomponents"
	default:
		return "/apis/networking.k8s.io/v1/networkpolicies"
	}
}

func newFakeAPI(t testing.TB) *fakeAPI {
	a := &fakeAPI{
		objects: map[string]map[string]object{}, events: map[string][]versioned{}, changed: make(chan struct{}), version: 1,
	}
	for path := range kinds {
		a.objects[path] = map[string]object{}
	}
	a.server = httptest.NewServer(a)
	t.Cleanup(func() {
		a.server.CloseClientConnections()
		a.server.Close()
	})
	return a
}

func (a *fakeAPI) kubeconfig() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: k3m, cluster: {server: %q}}]
users: [{name: component, user: {}}]
contexts: [{name: k3m, context: {cluster: k3m, user: component}}]
current-context: k3m
`, a.server.URL)
}

// put makes or replaces objects.
func (a *fakeAPI) put(objects ...object) {
	for _, o := range objects {
		a.change(o, false)
	}
}

func (a *fakeAPI) remove(objects ...object) {
	for _, o := range objects {
		a.change(o, true)
	}
}

func (a *fakeAPI) change(o object, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	path, key := pathOf(o), o.GetNamespace()+"/"+o.GetName()
	_, there := a.objects[path][key]
	a.version++
	o.SetResourceVersion(fmt.Sprint(a.version))
	kind := "ADDED"
	switch {
	case gone && !there:
		return
	case gone:
		kind = "DELETED"
		delete(a.objects[path], key)
	default:
		if there {
			kind = "MODIFIED"
		}
		a.objects[path][key] = o
	}
	a.events[path] = append(a.events[path], versioned{a.version, metav1.WatchEvent{Type: kind}})
	a.events[path][len(a.events[path])-1].event.Object.Raw = encode(path, o)
	close(a.changed)
	a.changed = make(chan struct{})
}

// encode writes an object with its kind.
func encode(path string, o any) []byte {
	raw, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		panic(err)
	}
	fields["kind"], fields["apiVersion"] = kinds[path], groupVersion(path)
	raw, err = json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return raw
}

func groupVersion(path string) string {
	trimmed := strings.TrimPrefix(strings.TrimPrefix(path, "/apis/"), "/api/")
	return trimmed[:strings.LastIndex(trimmed, "/")]
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if _, known := kinds[r.URL.Path]; !known || r.Method != http.MethodGet {
		w.WriteHeader(http.StatusForbidden) // what the component has no right to
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: http.StatusForbidden,
		})
		return
	}
	if r.URL.Query().Get("watch") != "" {
		a.watch(w, r)
	} else {
		a.list(w, r)
	}
}

func (a *fakeAPI) list(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	path := r.URL.Path
	node, byNode := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "spec.nodeName=")
	if byNode {
		a.lists++
	}
	items := []json.RawMessage{}
	for _, key := range slices.Sorted(maps.Keys(a.objects[path])) {
		if p, isPod := a.objects[path][key].(*corev1.Pod); byNode && isPod && p.Spec.NodeName != node {
			continue
		}
		items = append(items, encode(path, a.objects[path][key]))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": kinds[path] + "List", "apiVersion": groupVersion(path),
		"metadata": map[string]any{"resourceVersion": fmt.Sprint(a.version)}, "items": items,
	})
}

func (a *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	path, encoder := r.URL.Path, json.NewEncoder(w)
	var seen int
	a.mu.Lock()
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, o := range a.objects[path] {
			e := metav1.WatchEvent{Type: "ADDED"}
			e.Object.Raw = encode(path, o)
			_ = encoder.Encode(e)
		}
		e := metav1.WatchEvent{Type: "BOOKMARK"}
		e.Object.Raw = encode(path, map[string]any{"metadata": map[string]any{
			"resourceVersion": fmt.Sprint(a.version), "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}})
		_ = encoder.Encode(e)
		seen = a.version
	} else {
		_, _ = fmt.Sscan(r.URL.Query().Get("resourceVersion"), &seen)
	}
	for {
		events, changed := a.events[path], a.changed
		a.mu.Unlock()
		for _, e := range events {
			if e.version > seen {
				seen = e.version
				if encoder.Encode(e.event) != nil {
					return
				}
			}
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		a.mu.Lock()
	}
}
