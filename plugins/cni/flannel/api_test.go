package flannel

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodesAPI is the part of the Kubernetes API that the component uses, over HTTP: list
// and watch Nodes, patch a Node's status. The real one runs in the end-to-end tests.
type nodesAPI struct {
	server *httptest.Server

	mu       sync.Mutex
	nodes    map[string]*corev1.Node
	version  int
	changed  chan struct{} // closed and replaced at each change
	events   []metav1.WatchEvent
	patches  int
	refusing bool
}

func newNodesAPI(t *testing.T, address string) *nodesAPI {
	t.Helper()
	a := &nodesAPI{nodes: map[string]*corev1.Node{}, changed: make(chan struct{})}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	must(t, err)
	a.server = httptest.NewUnstartedServer(a)
	a.server.Listener.Close()
	a.server.Listener = listener
	a.server.Start()
	t.Cleanup(func() {
		a.server.CloseClientConnections()
		a.server.Close()
	})
	return a
}

func (a *nodesAPI) kubeconfig() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: k3m, cluster: {server: %q}}]
users: [{name: component, user: {}}]
contexts: [{name: k3m, context: {cluster: k3m, user: component}}]
current-context: k3m
`, a.server.URL)
}

// put makes or replaces a Node with the pod CIDRs; annotations stay.
func (a *nodesAPI) put(name string, podCIDRs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	node := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.NodeSpec{PodCIDRs: podCIDRs},
	}
	event := "ADDED"
	if old, ok := a.nodes[name]; ok {
		event, node.Annotations = "MODIFIED", old.Annotations
	}
	a.change(event, node)
}

func (a *nodesAPI) remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if node, ok := a.nodes[name]; ok {
		a.change("DELETED", node.DeepCopy())
	}
}

// annotate sets a Node's annotations, as another node's component does.
func (a *nodesAPI) annotate(name string, annotations map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	node := a.nodes[name].DeepCopy()
	node.Annotations = annotations
	a.change("MODIFIED", node)
}

func (a *nodesAPI) annotations(name string) map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if node, ok := a.nodes[name]; ok {
		return node.Annotations
	}
	return nil
}

// refuse makes each answer from now on a 401.
func (a *nodesAPI) refuse() {
	a.mu.Lock()
	a.refusing = true
	a.mu.Unlock()
	a.server.CloseClientConnections()
}

// change records an event. a.mu is held.
func (a *nodesAPI) change(event string, node *corev1.Node) {
	a.version++
	node.ResourceVersion = fmt.Sprint(a.version)
	if event == "DELETED" {
		delete(a.nodes, node.Name)
	} else {
		a.nodes[node.Name] = node
	}
	a.events = append(a.events, watchEvent(event, node))
	close(a.changed)
	a.changed = make(chan struct{})
}

func watchEvent(event string, node *corev1.Node) metav1.WatchEvent {
	raw, err := json.Marshal(node)
	if err != nil {
		panic(err)
	}
	e := metav1.WatchEvent{Type: event}
	e.Object.Raw = raw
	return e
}

func (a *nodesAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	a.mu.Lock()
	refusing := a.refusing
	a.mu.Unlock()
	switch {
	case refusing:
		status(w, http.StatusUnauthorized)
	case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/status"):
		a.patch(w, r, path.Base(path.Dir(r.URL.Path)))
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1/nodes" && r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1/nodes":
		a.list(w)
	default:
		status(w, http.StatusForbidden) // what the component has no right to
	}
}

func status(w http.ResponseWriter, code int) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code),
	})
}

func (a *nodesAPI) list(w http.ResponseWriter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}}
	list.ResourceVersion = fmt.Sprint(a.version)
	for _, node := range a.nodes {
		list.Items = append(list.Items, *node)
	}
	_ = json.NewEncoder(w).Encode(list)
}

func (a *nodesAPI) watch(w http.ResponseWriter, r *http.Request) {
	encoder := json.NewEncoder(w)
	a.mu.Lock()
	next := len(a.events)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, node := range a.nodes {
			_ = encoder.Encode(watchEvent("ADDED", node))
		}
		_ = encoder.Encode(watchEvent("BOOKMARK", &corev1.Node{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{
				ResourceVersion: fmt.Sprint(a.version),
				Annotations:     map[string]string{metav1.InitialEventsAnnotationKey: "true"},
			},
		}))
	} else {
		_, _ = fmt.Sscan(r.URL.Query().Get("resourceVersion"), &next) // one event a version
	}
	for {
		events, changed := a.events[next:], a.changed
		next = len(a.events)
		a.mu.Unlock()
		for _, event := range events {
			if encoder.Encode(event) != nil {
				return
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

func (a *nodesAPI) patch(w http.ResponseWriter, r *http.Request, name string) {
	var patch struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, &patch)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old, ok := a.nodes[name]
	switch {
	case err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json":
		status(w, http.StatusBadRequest)
		return
	case !ok:
		status(w, http.StatusNotFound)
		return
	}
	node := old.DeepCopy()
	if node.Annotations == nil {
		node.Annotations = map[string]string{}
	}
	for key, value := range patch.Metadata.Annotations {
		node.Annotations[key] = value
	}
	a.patches++
	a.change("MODIFIED", node)
	_ = json.NewEncoder(w).Encode(node)
}
