package coredns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// The ConfigMap, by the name that k3s gave it.
const (
	customNamespace = "kube-system"
	customName      = "coredns-custom"
)

// customState is a coredns-custom as the API has it now; a nil object is that there is none.
type customState struct {
	object *corev1.ConfigMap
}

// data are the keys that mean something.
func (s customState) data() map[string]string {
	if s.object == nil {
		return nil
	}
	data := maps.Clone(s.object.Data)
	maps.DeleteFunc(data, func(key, _ string) bool {
		return !strings.HasSuffix(key, overrideSuffix) && !strings.HasSuffix(key, serverSuffix)
	})
	return data
}

// watchCustom tells of the ConfigMap as it is, then of each change, until ctx ends.
func watchCustom(ctx context.Context, api *api, tell func(customState)) error {
	configMaps := api.client.CoreV1().ConfigMaps(customNamespace)
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, customName).String()
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = only
				return configMaps.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = only
				return configMaps.Watch(ctx, o)
			},
		}, api.client),
		ObjectType: &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { tell(customOf(object)) },
			UpdateFunc: func(_, object any) { tell(customOf(object)) },
			DeleteFunc: func(any) { tell(customState{}) },
		},
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		controller.RunWithContext(ctx)
	}()
	if cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) && len(store.List()) == 0 {
		tell(customState{}) // it may have gone while nobody looked
	}
	<-done
	return nil
}

func customOf(object any) customState {
	m, _ := object.(*corev1.ConfigMap)
	return customState{m}
}

// events writes Events on the ConfigMap.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

func newEvents(api *api, node string) *events {
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: api.client.CoreV1().Events("")})
	return &events{
		broadcaster: broadcaster,
		recorder:    broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "dns.coredns", Host: node}),
	}
}

func (e *events) refused(object *corev1.ConfigMap, why error) {
	e.recorder.Eventf(object, corev1.EventTypeWarning, "Refused", "%v; what was good before stays in force", why)
}

func (e *events) taken(object *corev1.ConfigMap) {
	e.recorder.Event(object, corev1.EventTypeNormal, "Taken", "in force")
}

func (e *events) close() { e.broadcaster.Shutdown() }

// lastGood is where the last coredns-custom that was good is kept, for a start at which the
// API has a broken one, or does not answer yet.
type lastGood struct{ path string }

func newLastGood(dir string) lastGood { return lastGood{filepath.Join(dir, "coredns-custom.json")} }

// load returns nil when nothing was kept.
func (l lastGood) load() (map[string]string, error) {
	text, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var data map[string]string
	if err == nil {
		err = json.Unmarshal(text, &data)
	}
	if err != nil {
		return nil, fmt.Errorf("read the last good %s: %w", customName, err)
	}
	return data, nil
}

// save replaces what was kept; no data removes it.
func (l lastGood) save(data map[string]string) error {
	if len(data) == 0 {
		if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the last good %s: %w", customName, err)
		}
		return nil
	}
	text, err := json.Marshal(data)
	if err == nil {
		next := l.path + ".next"
		if err = os.WriteFile(next, text, 0o600); err == nil {
			err = os.Rename(next, l.path)
		}
	}
	if err != nil {
		return fmt.Errorf("keep the last good %s: %w", customName, err)
	}
	return nil
}
