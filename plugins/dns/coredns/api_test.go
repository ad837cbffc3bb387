package coredns

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// testAPI is the part of the Kubernetes API that the component uses, over HTTP: list and
// watch, and creating Events. The real one runs in the end-to-end tests.
type testAPI struct {
	server *httptest.Server

	mu      sync.Mutex
	objects map[string]map[string]metav1.Object // by resource, "services", then by namespace/name
	version int
	changed chan struct{} // closed and replaced at each change
	log     []change
	hold    chan struct{} // while not nil, no request is answered before it is closed
	events  []corev1.Event
}

type change struct {
	resource, namespace, name string
	event                     metav1.WatchEvent
}

// apiVersions are the resources that there are.
var apiVersions = map[string]struct{ version, kind string }{
	"services": {"v1", "Service"}, "namespaces": {"v1", "Namespace"}, "nodes": {"v1", "Node"}, "configmaps": {"v1", "ConfigMap"},
	"endpointslices": {"discovery.k8s.io/v1", "EndpointSlice"},
}

func newTestAPI(t testing.TB) *testAPI {
	t.Helper()
	a := &testAPI{objects: map[string]map[string]metav1.Object{}, changed: make(chan struct{})}
	a.server = httptest.NewServer(a)
	t.Cleanup(func() {
		a.release()
		a.server.CloseClientConnections()
		a.server.Close()
	})
	return a
}

// kubeconfig writes one for the API.
func (a *testAPI) kubeconfig(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: k3m, cluster: {server: %q}}]
users: [{name: component, user: {}}]
contexts: [{name: k3m, context: {cluster: k3m, user: component}}]
current-context: k3m
`, a.server.URL), 0o600))
	return path
}

// put makes or replaces an object.
func (a *testAPI) put(resource string, object metav1.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := object.GetNamespace() + "/" + object.GetName()
	event := "ADDED"
	if a.objects[resource][key] != nil {
		event = "MODIFIED"
	}
	if a.objects[resource] == nil {
		a.objects[resource] = map[string]metav1.Object{}
	}
	a.objects[resource][key] = object
	a.change(event, resource, object)
}

func (a *testAPI) remove(resource, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	object := a.objects[resource][key]
	delete(a.objects[resource], key)
	a.change("DELETED", resource, object)
}

func (a *testAPI) change(event, resource string, object metav1.Object) {
	a.version++
	object.SetResourceVersion(strconv.Itoa(a.version))
	a.log = append(a.log, change{resource, object.GetNamespace(), object.GetName(), watchEvent(event, resource, object)})
	close(a.changed)
	a.changed = make(chan struct{})
}

// holdAll keeps the API from answering until release.
func (a *testAPI) holdAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hold = make(chan struct{})
}

func (a *testAPI) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hold != nil {
		close(a.hold)
		a.hold = nil
	}
}

// eventsOf are the messages of the Events with a reason.
func (a *testAPI) eventsOf(reason string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var messages []string
	for _, e := range a.events {
		if e.Reason == reason && e.InvolvedObject.Kind == "ConfigMap" {
			messages = append(messages, e.Message)
		}
	}
	return messages
}

func watchEvent(event, resource string, object any) metav1.WatchEvent {
	e := metav1.WatchEvent{Type: event}
	e.Object.Raw = encode(resource, object)
	return e
}

// encode adds the type to an object.
func encode(resource string, object any) []byte {
	raw, err := json.Marshal(object)
	if err == nil {
		var fields map[string]any
		if err = json.Unmarshal(raw, &fields); err == nil {
			fields["apiVersion"], fields["kind"] = apiVersions[resource].version, apiVersions[resource].kind
			raw, err = json.Marshal(fields)
		}
	}
	if err != nil {
		panic(err)
	}
	return raw
}

// ServeHTTP implements http.Handler.
func (a *testAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	hold := a.hold
	a.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	resource, namespace := path[len(path)-1], ""
	if len(path) > 3 && path[len(path)-3] == "namespaces" {
		namespace = path[len(path)-2]
	}
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	wanted := func(c change) bool {
		return c.resource == resource && (namespace == "" || c.namespace == namespace) && (name == "" || c.name == name)
	}
	_, known := apiVersions[resource]
	switch {
	case r.Method == http.MethodPost && resource == "events":
		a.takeEvent(w, r)
	case r.Method != http.MethodGet || !known:
		w.WriteHeader(http.StatusForbidden) // what the component has no right to
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: http.StatusForbidden})
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r, resource, wanted)
	default:
		a.list(w, resource, wanted)
	}
}

func (a *testAPI) takeEvent(w http.ResponseWriter, r *http.Request) {
	// Events are sent as protobuf by a client that speaks it.
	raw := make([]byte, 1<<16)
	n := 0
	for {
		read, err := r.Body.Read(raw[n:])
		if n += read; err != nil {
			break
		}
	}
	object, _, err := codecs.UniversalDeserializer().Decode(raw[:n], nil, nil)
	event, ok := object.(*corev1.Event)
	if err != nil || !ok {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.events = append(a.events, *event)
	close(a.changed)
	a.changed = make(chan struct{})
	a.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	event.APIVersion, event.Kind = "v1", "Event"
	_ = json.NewEncoder(w).Encode(event)
}

func (a *testAPI) list(w http.ResponseWriter, resource string, wanted func(change) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	items := []runtime.RawExtension{}
	for _, object := range a.objects[resource] {
		if wanted(change{resource: resource, namespace: object.GetNamespace(), name: object.GetName()}) {
			items = append(items, runtime.RawExtension{Raw: encode(resource, object)})
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": apiVersions[resource].version, "kind": apiVersions[resource].kind + "List", "items": items,
		"metadata": map[string]string{"resourceVersion": strconv.Itoa(a.version)},
	})
}

func (a *testAPI) watch(w http.ResponseWriter, r *http.Request, resource string, wanted func(change) bool) {
	encoder := json.NewEncoder(w)
	a.mu.Lock()
	next := len(a.log)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for _, object := range a.objects[resource] {
			if wanted(change{resource: resource, namespace: object.GetNamespace(), name: object.GetName()}) {
				_ = encoder.Encode(watchEvent("ADDED", resource, object))
			}
		}
		_ = encoder.Encode(watchEvent("BOOKMARK", resource, map[string]any{"metadata": map[string]any{
			"resourceVersion": strconv.Itoa(a.version),
			"annotations":     map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}}))
	} else {
		_, _ = fmt.Sscan(r.URL.Query().Get("resourceVersion"), &next) // one change a version
	}
	for {
		changes, changed := a.log[next:], a.changed
		next = len(a.log)
		a.mu.Unlock()
		for _, c := range changes {
			if wanted(c) && encoder.Encode(c.event) != nil {
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
