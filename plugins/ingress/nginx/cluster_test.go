package nginx

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

// TestCluster drives the component, with the host's nginx, against a real API server, with
// the rights of its Info.
func TestCluster(t *testing.T) {
	f := newFixture(t)
	t.Run("contract", func(t *testing.T) {
		self, err := os.Executable()
		must(t, err)
		plugintest.Run(t, plugintest.Options{
			New: New, Executable: self, Args: []string{id}, // see TestMain
			Kubeconfig: f.kubeconfig, Facts: sdk.Facts{PodGateways: []netip.Addr{netip.MustParseAddr("127.0.9.1")}},
			Config: json.RawMessage(`{"httpPort": 8080, "httpsPort": 8443, "accessLog": true, "defaultCertificate": "default/absent",
				"defaultBackend": "default/absent:http", "configMap": "default/absent", "settings": {"proxy-body-size": "2m"}}`),
			BadConfigs: badConfigs,
			WhileReady: func(t *testing.T, facts sdk.Facts) {
				c := &component{t: t, gateway: facts.PodGateways[0]}
				c.wants("http://absent.test/", http.StatusServiceUnavailable, "")
			},
		})
	})
	f.published(t, "192.0.2.1")
	c := f.run(t, "127.0.9.2", `{"allowSnippets": true, "accessLog": true}`).ready()

	t.Run("serves", func(t *testing.T) { f.testServes(t, c) })
	t.Run("rollout under load", func(t *testing.T) { f.testRollout(t, c) })
	t.Run("a configuration that nginx refuses", func(t *testing.T) { f.testRefused(t, c) })
	t.Run("TLS", func(t *testing.T) { f.testTLS(t, c) })
	t.Run("two claim one path", func(t *testing.T) { f.testDuplicate(t, c) })
	t.Run("status", func(t *testing.T) { f.testStatus(t) })
	t.Run("somebody holds port 80", func(t *testing.T) { f.testHeld(t, c) })
	t.Run("settings", func(t *testing.T) { f.testSettings(t, c) })
	t.Run("nginx dies", func(t *testing.T) { f.testDeath(t, c) })
	t.Run("stop", func(t *testing.T) {
		socket := filepath.Join(c.run, "nginx", statusSocket)
		c.stop()
		if _, _, err := c.get("http://a.test/"); err == nil {
			t.Error("somebody answers")
		}
		if _, err := os.Stat(socket); err == nil {
			t.Error("nginx's socket is left")
		}
	})
	t.Run("no nginx", f.testNoNginx)
	t.Run("host ports", f.testHostPorts)
}

func (f *fixture) testServes(t *testing.T, c *component) {
	c.wants("http://a.test/", http.StatusNotFound, "")
	f.service(t, "a", 9001, "10.42.1.1")
	backend(f.t, "10.42.1.1:9001", "a1")
	f.ingress(t, "a", "a.test", "a", nil)
	c.wants("http://a.test/", http.StatusOK, "a1 127.0.0.1")
	c.wants("http://b.test/", http.StatusNotFound, "")
	f.endpoints(t, "a", 9001)
	c.wants("http://a.test/", http.StatusServiceUnavailable, "")
	f.endpoints(t, "a", 9001, "10.42.1.1")
	c.wants("http://a.test/", http.StatusOK, "a1")
	f.ingress(t, "other", "other.test", "a", func(i *networkingv1.Ingress) { other := "other"; i.Spec.IngressClassName = &other })
	f.ingress(t, "unnamed", "unnamed.test", "a", func(i *networkingv1.Ingress) { i.Spec.IngressClassName = nil })
	c.wants("http://unnamed.test/", http.StatusOK, "a1")
	c.wants("http://other.test/", http.StatusNotFound, "")
	var metrics bytes.Buffer
	must(t, c.plugin.WriteMetrics(t.Context(), &metrics))
	for _, want := range []string{"nginx_ingress_controller_nginx_process_requests_total ", "nginx_ingress_controller_success ",
		"nginx_ingress_controller_config_last_reload_successful 1", "nginx_ingress_controller_ingresses 2"} {
		if !strings.Contains(metrics.String(), want) {
			t.Errorf("metrics lack %q:\n%s", want, metrics.String())
		}
	}
	if !strings.Contains(c.log.String(), "access: 127.0.0.1 ") {
		t.Error("the access log tells nothing of the request")
	}
}

// testRollout replaces a backend's endpoints again and again, as a Deployment does, while
// clients ask.
func (f *fixture) testRollout(t *testing.T, c *component) {
	// Endpoints that stop answering only when they are out of traffic: the grace that a
	// preStop hook gives.
	var servers []*http.Server
	serve := func(n int) string {
		address := fmt.Sprintf("10.42.2.%d", n)
		listener := netListen{}.listen(t, address+":9001")
		s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, address) })}
		go func() { _ = s.Serve(listener) }()
		servers = append(servers, s)
		return address
	}
	t.Cleanup(func() {
		for _, s := range servers {
			_ = s.Close()
		}
	})
	a, b := serve(1), serve(2)
	f.service(t, "rolling", 9001, a, b)
	f.ingress(t, "rolling", "rolling.test", "rolling", nil)
	c.wants("http://rolling.test/", http.StatusOK, a)

	var asked, failed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for n := range 8 {
		load.Go(func() {
			client := c.client()
			client.Transport.(*http.Transport).DisableKeepAlives = n%2 == 0
			for ctx.Err() == nil {
				response, err := client.Get("http://rolling.test/") //nolint:noctx // it has a timeout
				if err == nil {
					_, err = io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
				asked.Add(1)
				if err != nil || response.StatusCode != http.StatusOK {
					failed.Add(1)
					t.Logf("%v %v", response, err)
				}
			}
		})
	}
	for n := 3; n < 9; n++ {
		fresh := serve(n)
		f.endpoints(t, "rolling", 9001, a+" terminating", b, fresh)
		c.wants("http://rolling.test/", http.StatusOK, fresh)
		f.endpoints(t, "rolling", 9001, b, fresh)
		// Out of traffic when the others have all answered and it has not for a while.
		within(t, func() bool {
			for range 20 {
				if _, body, err := c.get("http://rolling.test/"); err != nil || body == a {
					return false
				}
			}
			return true
		}, func() string { return a + " is still in traffic" })
		must(t, servers[n-3].Shutdown(t.Context()))
		a, b = b, fresh
	}
	cancel()
	load.Wait()
	if failed.Load() > 0 || asked.Load() == 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
	t.Logf("%d requests", asked.Load())
}

func (f *fixture) testRefused(t *testing.T, c *component) {
	f.service(t, "good", 9001, "10.42.3.1")
	backend(t, "10.42.3.1:9001", "good")
	f.ingress(t, "bad", "bad.test", "good", func(i *networkingv1.Ingress) {
		i.Annotations[annotationPrefix+"configuration-snippet"] = "no_such_directive on;"
	})
	f.ingress(t, "good", "good.test", "good", nil)
	c.wants("http://good.test/", http.StatusOK, "good")
	c.wants("http://bad.test/", http.StatusNotFound, "")
	f.event(t, "bad", reasonRefused, "no_such_directive")
	// Mended, it is served.
	ingresses := f.admin.NetworkingV1().Ingresses("default")
	i, err := ingresses.Get(t.Context(), "bad", metav1.GetOptions{})
	must(t, err)
	i.Annotations[annotationPrefix+"configuration-snippet"] = `add_header X-Mended yes;`
	_, err = ingresses.Update(t.Context(), i, metav1.UpdateOptions{})
	must(t, err)
	c.wants("http://bad.test/", http.StatusOK, "good")
}

// event waits for an Event about an Ingress.
func (f *fixture) event(t *testing.T, ingress, reason, contains string) {
	t.Helper()
	within(t, func() bool {
		events, err := f.admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		must(t, err)
		for _, e := range events.Items {
			if e.Regarding.Kind == "Ingress" && e.Regarding.Name == ingress && e.Reason == reason && strings.Contains(e.Note, contains) {
				return true
			}
		}
		return false
	}, func() string {
		events, _ := f.admin.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{})
		return fmt.Sprintf("no Event %s about %s: %+v", reason, ingress, events.Items)
	})
}

func (f *fixture) testTLS(t *testing.T, c *component) {
	f.service(t, "tls", 9001, "10.42.3.2")
	backend(t, "10.42.3.2:9001", "tls")
	f.ingress(t, "tls", "tls.test", "tls", func(i *networkingv1.Ingress) {
		i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"tls.test"}, SecretName: "tls"}}
	})
	c.wants("https://tls.test/", http.StatusOK, "tls") // by the default certificate
	f.event(t, "tls", kit.ReasonSecretMissing, "default/tls")
	c.wants("http://tls.test/", http.StatusPermanentRedirect, "")
	pair, err := selfSign(time.Now())
	must(t, err)
	_, err = f.admin.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tls"},
		Type: corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": pair.Cert, "tls.key": pair.Key}}, metav1.CreateOptions{})
	must(t, err)
	want, err := tls.X509KeyPair(pair.Cert, pair.Key)
	must(t, err)
	within(t, func() bool {
		dialer := tls.Dialer{Config: &tls.Config{ServerName: "tls.test", InsecureSkipVerify: true}} //nolint:gosec // looked at below
		conn, err := dialer.DialContext(t.Context(), "tcp", "127.0.9.2:"+strconv.Itoa(internalHTTPS))
		must(t, err)
		defer conn.Close()
		return bytes.Equal(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw, want.Certificate[0])
	}, func() string { return "the secret's certificate is not served" })
	// One that can't be read, and is not of the type, is watched all the same.
	f.ingress(t, "opaque", "opaque.test", "tls", func(i *networkingv1.Ingress) {
		i.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{"opaque.test"}, SecretName: "opaque"}}
	})
	_, err = f.admin.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "opaque"},
		Data: map[string][]byte{"tls.crt": pair.Cert, "tls.key": []byte("nonsense")}}, metav1.CreateOptions{})
	must(t, err)
	f.event(t, "opaque", kit.ReasonSecretInvalid, "default/opaque")
	c.wants("https://opaque.test/", http.StatusOK, "tls")
}

func (f *fixture) testDuplicate(t *testing.T, c *component) {
	for _, name := range []string{"first", "second"} {
		f.service(t, name, 9001, map[string]string{"first": "10.42.4.1", "second": "10.42.4.2"}[name])
		backend(t, map[string]string{"first": "10.42.4.1:9001", "second": "10.42.4.2:9001"}[name], name)
		f.ingress(t, name, "twice.test", name, nil)
	}
	f.event(t, "second", kit.ReasonDuplicatePath, "default/first")
	c.wants("http://twice.test/", http.StatusOK, "first")
	must(t, f.admin.NetworkingV1().Ingresses("default").Delete(t.Context(), "first", metav1.DeleteOptions{}))
	c.wants("http://twice.test/", http.StatusOK, "second")
}

func (f *fixture) testStatus(t *testing.T) {
	f.ingress(t, "status", "status.test", "a", nil)
	has := func(want string) { t.Helper(); f.hasAddress(t, "status", want) }
	has("192.0.2.1")
	services := f.admin.CoreV1().Services(kit.Namespace)
	s, err := services.Get(t.Context(), serviceName, metav1.GetOptions{})
	must(t, err)
	s.Status.LoadBalancer.Ingress[0].IP = "192.0.2.9"
	_, err = services.UpdateStatus(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	has("192.0.2.9")
	i, err := f.admin.NetworkingV1().Ingresses("default").Get(t.Context(), "status", metav1.GetOptions{})
	must(t, err)
	other := "other"
	i.Spec.IngressClassName = &other
	_, err = f.admin.NetworkingV1().Ingresses("default").Update(t.Context(), i, metav1.UpdateOptions{})
	must(t, err)
	has("")
}

// testHeld has a load balancer say that it can't give the node's address, and give it.
func (f *fixture) testHeld(t *testing.T, c *component) {
	services := f.admin.CoreV1().Services(kit.Namespace)
	s, err := services.Get(t.Context(), serviceName, metav1.GetOptions{})
	must(t, err)
	const holder = "port 80/TCP is held by the process apache2 (812) on node-1 (192.0.2.2); the Service gets the address when the port is free"
	_, err = f.admin.CoreV1().Events(kit.Namespace).Create(t.Context(), &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "held"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: kit.Namespace, Name: serviceName, UID: s.UID},
		Type:           corev1.EventTypeWarning, Reason: "PortTaken", Message: holder, LastTimestamp: metav1.Now()}, metav1.CreateOptions{})
	must(t, err)
	c.await(func(r client.Report) bool {
		d, is := r.(client.Degraded)
		return is && strings.Contains(d.Reason, holder)
	})
	s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: nodeIP})
	_, err = services.UpdateStatus(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	degraded := false
	c.await(func(r client.Report) bool {
		switch r.(type) {
		case client.Degraded:
			degraded = true
		case client.Ready:
			return degraded // anew
		}
		return false
	})
	// With the load balancer gone, the Event of then is not true any more.
	f.ingress(t, "unbalanced", "unbalanced.test", "a", nil)
	f.hasAddress(t, "unbalanced", "192.0.2.9"+nodeIP)
	s, err = services.Get(t.Context(), serviceName, metav1.GetOptions{})
	must(t, err)
	s.Status.LoadBalancer.Ingress = nil
	_, err = services.UpdateStatus(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	f.hasAddress(t, "unbalanced", "")
	c.mu.Lock()
	if _, is := c.reports[len(c.reports)-1].(client.Degraded); is {
		t.Errorf("%+v", c.reports[len(c.reports)-1])
	}
	c.mu.Unlock()
	// A component that starts now could not know: give the address back.
	s, err = services.Get(t.Context(), serviceName, metav1.GetOptions{})
	must(t, err)
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: nodeIP}}
	_, err = services.UpdateStatus(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
}

// hasAddress waits until an Ingress's status has these addresses.
func (f *fixture) hasAddress(t *testing.T, name, want string) {
	t.Helper()
	var got string
	within(t, func() bool {
		i, err := f.admin.NetworkingV1().Ingresses("default").Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		got = ""
		for _, a := range i.Status.LoadBalancer.Ingress {
			got += a.IP
		}
		return got == want
	}, func() string { return fmt.Sprintf("the status of %s has %q, want %q", name, got, want) })
}

func (f *fixture) testSettings(t *testing.T, c *component) {
	f.ingress(t, "settings", "settings.test", "a", nil)
	big := strings.Repeat("x", 2<<20)
	post := func() int {
		response, err := c.client().Post("http://settings.test/", "text/plain", strings.NewReader(big)) //nolint:noctx // it has a timeout
		if err != nil {
			return 0
		}
		response.Body.Close()
		return response.StatusCode
	}
	c.wants("http://settings.test/", http.StatusOK, "a1")
	if got := post(); got != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of 2 MiB is answered %d", got)
	}
	_, err := f.admin.CoreV1().ConfigMaps(kit.Namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "ingress-nginx-controller"}, Data: map[string]string{"proxy-body-size": "8m"}}, metav1.CreateOptions{})
	must(t, err)
	var got int
	within(t, func() bool { got = post(); return got == http.StatusOK }, func() string { return fmt.Sprintf("a body of 2 MiB is answered %d", got) })
}
