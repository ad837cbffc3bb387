package render_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/annotations"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

// site is a small cluster: objects in namespace "default", and what nginx makes of them.
type site struct {
	t         testing.TB
	ingresses []*networkingv1.Ingress
	services  map[string]*corev1.Service
	slices    map[string][]*discoveryv1.EndpointSlice
	secrets   map[string]*corev1.Secret
	config    map[string]string
	snippets  bool
	standard  *translate.ServiceRef
	resolver  []netip.AddrPort
	// http and https are nginx's addresses.
	http, https netip.AddrPort
	// stop ends nginx when it has answered what was asked.
	stop func()
}

func newSite(t testing.TB) *site {
	return &site{t: t, services: map[string]*corev1.Service{}, slices: map[string][]*discoveryv1.EndpointSlice{},
		secrets: map[string]*corev1.Secret{}, config: map[string]string{}}
}

// service adds a Service with port 80, named "web", at these endpoints.
func (s *site) service(name string, endpoints ...netip.AddrPort) {
	s.services[name] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "web", Port: 80}}}}
	for _, endpoint := range endpoints {
		port, portName := int32(endpoint.Port()), "web"
		s.slices[name] = append(s.slices[name], &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
			Ports:     []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{endpoint.Addr().String()}}}})
	}
}

// backend adds a Service of one endpoint that says its name, and the request that it got.
func (s *site) backend(name string) {
	s.service(name, serve(s.t, echo(name)))
}

// echo answers with a name and the request as it came.
func echo(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", name)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s\nHost: %s\n", name, r.Method, r.RequestURI, r.Host)
		_ = r.Header.Write(w)
		fmt.Fprintf(w, "\n%s", body)
	})
}

func serve(t testing.TB, handler http.Handler) netip.AddrPort {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// rule is "host/path service", with a path type in front: "= a.example/foo web", "^" for a prefix, "~" for
// what the implementation makes of it.
func (s *site) ingress(name string, given map[string]string, rules ...string) *networkingv1.Ingress {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{},
		CreationTimestamp: metav1.NewTime(time.Unix(int64(1000+len(s.ingresses)), 0))}}
	for key, value := range given {
		ing.Annotations[annotations.Prefix+key] = value
	}
	for _, rule := range rules {
		words := strings.Fields(rule)
		if len(words) != 3 {
			s.t.Fatalf("rule %q", rule)
		}
		kind := map[string]networkingv1.PathType{"=": networkingv1.PathTypeExact, "^": networkingv1.PathTypePrefix,
			"~": networkingv1.PathTypeImplementationSpecific}[words[0]]
		host, path, _ := strings.Cut(words[1], "/")
		ing.Spec.Rules = append(ing.Spec.Rules, networkingv1.IngressRule{Host: host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/" + path, PathType: &kind,
				Backend: *backendRef(words[2])}}}}})
	}
	s.ingresses = append(s.ingresses, ing)
	return ing
}

func backendRef(name string) *networkingv1.IngressBackend {
	return &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name,
		Port: networkingv1.ServiceBackendPort{Name: "web"}}}
}

// translate makes the model.
func (s *site) translate() (translate.Output, *settings.Settings) {
	set, problems := settings.Parse(s.snippets, s.config)
	for _, p := range problems {
		s.t.Fatalf("ConfigMap: %s: %s", p.Key, p.Message)
	}
	return translate.Translate(s.input(set)), set
}

func (s *site) input(set *settings.Settings) translate.Input {
	return translate.Input{Ingresses: s.ingresses, Settings: set, Certificate: defaultPair(s.t), DefaultBackend: s.standard,
		Options: translate.Options{Snippets: s.snippets},
		Service: func(namespace, name string) *corev1.Service {
			if namespace != "default" {
				return nil
			}
			return s.services[name]
		},
		EndpointSlices: func(_, name string) []*discoveryv1.EndpointSlice { return s.slices[name] },
		Secret: func(namespace, name string) *corev1.Secret {
			return s.secrets[types.NamespacedName{Namespace: namespace, Name: name}.Name]
		},
	}
}

// version is what the installed nginx can do.
var version = sync.OnceValues(func() (render.Nginx, error) {
	out, err := exec.CommandContext(context.Background(), "nginx", "-V").CombinedOutput()
	if err != nil {
		return render.Nginx{}, fmt.Errorf("nginx -V: %w", err)
	}
	return render.ParseVersion(string(out))
})

// env is a folder that nginx may use, as whoever it runs as.
func (s *site) env() render.Env {
	s.t.Helper()
	n, err := version()
	if err != nil {
		s.t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "k3m-nginx-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return render.Env{Dir: dir, RunDir: dir, HTTP: []netip.AddrPort{s.http}, HTTPS: []netip.AddrPort{s.https},
		Status: dir + "/status.sock", Generation: "1", Resolver: s.resolver, AccessLog: dir + "/access.log", ErrorLog: "stderr", Nginx: n,
		Foreground: true}
}

// start renders the site and runs nginx on it; it returns the access log's path.
func (s *site) start() string {
	s.t.Helper()
	out, set := s.translate()
	for _, p := range out.Problems {
		s.t.Logf("problem: %s: %s: %s", p.Ingress, p.Reason, p.Message)
	}
	s.http, s.https = freePort(s.t), freePort(s.t)
	env := s.env()
	rendered, err := render.Render(out.Config, set, env)
	if err != nil {
		s.t.Fatal(err)
	}
	place(s.t, env, rendered)
	cmd := nginx(env)
	cmd.Args = append(cmd.Args, "-e", "stderr")
	// The workers end with their master only if it is asked to.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan struct{})
	var log bytes.Buffer
	go func() {
		defer close(done)
		once := sync.OnceFunc(func() { close(ready) })
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if strings.Contains(lines.Text(), "start worker process ") {
				once()
			}
		}
	}()
	s.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		<-done
		_ = cmd.Wait()
	})
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		s.stop()
		if s.t.Failed() {
			s.t.Logf("nginx:\n%s", log.String())
			for _, file := range rendered.Files {
				if file.Path == render.Conf {
					s.t.Logf("%s", file.Data)
				}
			}
		}
	})
	select {
	case <-ready:
	case <-done:
		s.t.Fatalf("nginx ended:\n%s", log.String())
	}
	return env.AccessLog
}

// place writes files as the controller does.
func place(t testing.TB, env render.Env, out *render.Output) {
	t.Helper()
	for _, file := range out.Files {
		path := filepath.Join(env.Dir, file.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, file.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getuid() != 0 {
		return
	}
	err := filepath.WalkDir(env.Dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
}

const nobody = 65534

// nginx is the command, unprivileged.
func nginx(env render.Env, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), "nginx", append([]string{"-p", env.RunDir, "-c", env.Dir + "/" + render.Conf}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

func freePort(t testing.TB) netip.AddrPort {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body string
}

// get asks nginx; change may alter the request.
func (s *site) get(url string, change ...func(*http.Request)) reply {
	s.t.Helper()
	return s.do(s.client(), url, change...)
}

// client reaches nginx whatever a URL's host is, and follows no redirects.
func (s *site) client() *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := s.http
		if strings.HasSuffix(addr, ":443") {
			to = s.https
		}
		return new(net.Dialer).DialContext(ctx, network, to.String())
	}
	transport := &http.Transport{DialContext: dial, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (s *site) do(client *http.Client, url string, change ...func(*http.Request)) reply {
	s.t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range change {
		f(request)
	}
	response, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{Response: response, body: string(body)}
}

// with sets a header of a request.
func with(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// from tells which backend answered, or the code.
func (r reply) from() string {
	if name := r.Header.Get("X-Backend"); name != "" {
		return name
	}
	return fmt.Sprint(r.StatusCode)
}

// saw is a line of the request as the backend got it.
func (r reply) saw(header string) string {
	for line := range strings.Lines(r.body) {
		if value, found := strings.CutPrefix(line, header+": "); found {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// path is the request's target as the backend got it.
func (r reply) path() string {
	words := strings.Fields(r.body)
	if len(words) < 3 {
		return ""
	}
	return words[2]
}
