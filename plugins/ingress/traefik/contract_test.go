package traefik

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/plugintest"
)

const (
	// gateway is the node's pod gateway: an address of loopback that no other process listens on.
	gateway = "127.77.0.1"
	// eventually bounds waits for what takes moments.
	eventually = 30 * time.Second
)

// TestContract drives the component, in process and as an executable, against a real API server, with the rights of its
// Info.
func TestContract(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds an API server")
	}
	admin := startAPI(t)
	client := kubernetes.NewForConfigOrDie(admin)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-For"), r.URL.Path)
	}))
	t.Cleanup(backend.Close)
	for _, definition := range New().Info().Objects {
		apply(t, admin, definition)
	}
	grant(t, client)
	_, port, err := net.SplitHostPort(backend.Listener.Addr().String())
	must(t, err)
	apply(t, admin, []byte(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside", "namespace": "default"},
		"spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": `+port+`}]}}`))
	for host, class := range map[string]string{"served.test": "traefik", "strange.test": "other"} {
		apply(t, admin, fmt.Appendf(nil, `{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": %q, "namespace": "default"},
			"spec": {"ingressClassName": %q, "rules": [{"host": %q, "http": {"paths": [{"path": "/a", "pathType": "Prefix",
			"backend": {"service": {"name": "outside", "port": {"number": %s}}}}]}}]}}`, class, class, host, port))
	}

	self, err := os.Executable()
	must(t, err)
	plugintest.Run(t, plugintest.Options{
		New: New, Executable: self, Args: []string{id}, // see TestMain
		Facts:      sdk.Facts{NodeName: "n1", PodGateways: []netip.Addr{netip.MustParseAddr(gateway)}},
		Kubeconfig: identity(t, admin),
		Config:     json.RawMessage(`{"allowExternalNameServices": true}`),
		BadConfigs: badConfigs,
		WhileReady: func(t *testing.T, _ sdk.Facts) {
			becomes(t, "served.test/a/b", "200 127.0.0.1/a/b")
			becomes(t, "served.test/b", "404 404 page not found\n")
			becomes(t, "strange.test/a", "404 404 page not found\n")
		},
	})
	t.Run("certificates of an ACME authority", func(t *testing.T) { testACME(t, admin, self, port) })
}

// startAPI builds and runs package test/apiserver's executable: an API server can't be linked into this module.
func startAPI(t *testing.T) *rest.Config {
	t.Helper()
	executable, dir := filepath.Join(t.TempDir(), "apiserver"), t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-ldflags=-s -w", "-o", executable, "./test/apiserver")
	build.Dir = "../../.."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the API server: %v\n%s", err, output)
	}
	watcher, err := fsnotify.NewWatcher()
	must(t, err)
	defer func() { _ = watcher.Close() }()
	must(t, watcher.Add(dir))
	server := exec.CommandContext(context.WithoutCancel(t.Context()), executable, "-test.run=^TestServe$")
	server.Env = append(os.Environ(), "K3M_TEST_APISERVER_DIR="+dir)
	var output bytes.Buffer
	server.Stdout, server.Stderr = &output, &output
	stdin, err := server.StdinPipe()
	must(t, err)
	must(t, server.Start())
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() {
		stdin.Close()
		if err := <-ended; err != nil {
			t.Errorf("the API server: %v\n%s", err, output.Bytes())
		}
	})
	path := filepath.Join(dir, "kubeconfig")
	for {
		select {
		case event := <-watcher.Events:
			if event.Name != path {
				continue
			}
		case err := <-ended:
			ended <- err
			t.Fatalf("the API server ended: %v", err)
		}
		config, err := clientcmd.BuildConfigFromFlags("", path)
		must(t, err)
		config.QPS = -1
		return config
	}
}

// grant gives the component's user the rules of its Info, as the core does.
func grant(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "component"}}
	for _, r := range New().Info().Rules {
		role.Rules = append(role.Rules, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources})
	}
	_, err := client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
	must(t, err)
	_, err = client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "component"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "component"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "component"}}}, metav1.CreateOptions{})
	must(t, err)
	_, err = client.CoreV1().Namespaces().Get(t.Context(), corev1.NamespaceDefault, metav1.GetOptions{})
	must(t, err)
}

// identity is the kubeconfig of the component's user.
func identity(t *testing.T, admin *rest.Config) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: admin.Host, InsecureSkipTLSVerify: true}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: admin.BearerToken, Impersonate: "component", ImpersonateGroups: []string{"system:authenticated"}}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, clientcmd.WriteToFile(*config, path))
	return path
}

// apply applies an object of a kind that the test uses.
func apply(t *testing.T, admin *rest.Config, object []byte) {
	t.Helper()
	var o struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   metav1.ObjectMeta `json:"metadata"`
	}
	must(t, yaml.Unmarshal(object, &o))
	path := map[string]string{
		"Service":                  "/api/v1/namespaces/default/services/",
		"Ingress":                  "/apis/networking.k8s.io/v1/namespaces/default/ingresses/",
		"CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/",
	}[o.Kind]
	err := kubernetes.NewForConfigOrDie(admin).RESTClient().Patch("application/apply-patch+yaml").AbsPath(path+o.Metadata.Name).
		Param("fieldManager", "test").Body(object).Do(t.Context()).Error()
	must(t, err)
}

// becomes asks, through the entry point web, until the answer is want, "<status> <body>".
func becomes(t *testing.T, what, want string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("%s:%d", gateway, listenHTTP))
	}}}
	ctx, cancel := context.WithTimeout(t.Context(), eventually)
	defer cancel()
	for last := ""; ; {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+what, nil)
		must(t, err)
		answer, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s: %v; at last %q, want %q", what, err, last, want)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if last = fmt.Sprintf("%d %s", answer.StatusCode, body); err == nil && last == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %q, want %q", what, last, want)
		case <-time.After(50 * time.Millisecond): // nothing tells when Traefik has taken a route
		}
	}
}
