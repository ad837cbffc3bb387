package nginx

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

// BenchmarkTenThousand tells what a change costs in a cluster of ten thousand Ingresses, until
// nginx -t has found the configuration good.
func BenchmarkTenThousand(b *testing.B) {
	const ingresses, services = 10_000, 1_000
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("watch") {
			if r.URL.Query().Has("sendInitialEvents") {
				http.Error(w, "not here", http.StatusBadRequest)
				return
			}
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	}))
	defer api.CloseClientConnections()
	clients, err := kit.ClientsFor(&rest.Config{Host: api.URL}, id, node)
	if err != nil {
		b.Fatal(err)
	}
	before := heap()
	w, err := newWatches(clients)
	if err != nil {
		b.Fatal(err)
	}
	defer w.configMaps.Close()
	add := func(watch *kit.Watch, object any) {
		if err := watch.GetStore().Add(object); err != nil {
			b.Fatal(err)
		}
	}
	add(w.classes, &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: className},
		Spec: networkingv1.IngressClassSpec{Controller: controllerName}})
	pair, err := selfSign(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for n := range services {
		name := fmt.Sprintf("web-%d", n)
		add(w.services, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}})
		add(w.slices, slice(name, n, 0))
	}
	prefix, class := networkingv1.PathTypePrefix, className
	for n := range ingresses {
		i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("i-%d", n),
			UID: types.UID(fmt.Sprint(n)), Annotations: map[string]string{annotationPrefix + "proxy-body-size": "8m"}},
			Spec: networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{{Host: fmt.Sprintf("host-%d.example.com", n),
				IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
					{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
						Name: fmt.Sprintf("web-%d", n%services), Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}}}
		add(w.ingresses, i)
	}
	log := hclog.NewNullLogger()
	nginx, _, err := find(b.Context(), candidates(""))
	if err != nil {
		b.Skip(err)
	}
	run, err := os.MkdirTemp("", "k3m")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(run)
	store, err := newStore(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	l := &launcher{nginx: nginx, sockets: &sockets{}, runDir: run}
	builder := &builder{watches: w, launcher: l, store: store, log: log, metrics: &metrics{}, selfSigned: pair,
		cfg: config{ConfigMap: defaultConfigMap}, refused: map[types.UID]refusal{}, seed: maphash.MakeSeed(), cache: translate.NewCache(),
		env: render.Env{Dir: store.dir, RunDir: run, HTTP: []netip.AddrPort{netip.MustParseAddrPort("127.0.7.1:8081")},
			Status: run + "/status.sock", Generation: store.token, ErrorLog: "stderr", Nginx: nginx.version, Foreground: true}}
	if err := builder.look(time.Now()); err != nil {
		b.Fatal(err)
	}
	g, err := builder.build(b.Context(), "")
	if err != nil {
		b.Fatal(err)
	}
	if err := store.activate(g); err != nil {
		b.Fatal(err)
	}
	grown := heap() - before
	var look, render, test time.Duration
	n := 0
	for b.Loop() {
		n++
		add(w.slices, slice("web-0", 0, n))
		at := time.Now()
		if err := builder.look(time.Now()); err != nil {
			b.Fatal(err)
		}
		look += time.Since(at)
		at = time.Now()
		g, _, err := builder.render(func(*networkingv1.Ingress) bool { return true })
		if err != nil {
			b.Fatal(err)
		}
		render += time.Since(at)
		at = time.Now()
		if err := l.test(b.Context(), g.conf); err != nil {
			b.Fatal(err)
		}
		test += time.Since(at)
		if err := store.activate(g); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(grown)/(1<<20), "MiB-heap")
	b.ReportMetric(float64(g.bytes)/(1<<20), "MiB-conf")
	b.ReportMetric(float64(look.Milliseconds())/float64(n), "ms-look")
	b.ReportMetric(float64(render.Milliseconds())/float64(n), "ms-render")
	b.ReportMetric(float64(test.Milliseconds())/float64(n), "ms-test")
}

func slice(service string, n, generation int) *discoveryv1.EndpointSlice {
	s := endpointSlice(service, 8080, fmt.Sprintf("10.42.%d.%d", n/250, n%250+1), fmt.Sprintf("10.43.%d.%d", generation/250, generation%250+1))
	s.Namespace = "default"
	return s
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
