package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/test/harness"
	"github.com/k3m-io/k3m/test/httpload"
	"github.com/k3m-io/k3m/test/images"
)

// ingressFigures are what the ingress controllers cost and do.
type ingressFigures struct {
	What string `json:"what"`
	// Traffic is by target: "pod" is a pod asked without anything between, "stock nginx" the
	// distribution's nginx as a bare reverse proxy to it; the others are the components.
	Traffic map[string]trafficFigures `json:"traffic,omitempty"`
	// Controllers is what each holds and how soon it follows, by component.
	Controllers map[string]controllerFigures `json:"controllers,omitempty"`
}

// trafficFigures are those of one target, each over all rounds.
type trafficFigures struct {
	// RequestsPerSecond is as fast as the answers came.
	RequestsPerSecond stats `json:"requestsPerSecond"`
	// P50 and P99 are at the fixed rate.
	P50 stats `json:"p50Seconds"`
	P99 stats `json:"p99Seconds"`
	// CPU is what the proxy's processes took for a request meanwhile, as fast as they could.
	CPU    stats  `json:"proxyMicrosecondsOfCPUPerRequest"`
	Failed uint64 `json:"failed"`
	// OfStock is the median of requests a second in relation to stock nginx's.
	OfStock float64 `json:"ofStockNginx"`
}

// ingressComponents are the controllers, with the port on which each serves when all run: the
// first of the kind has 80.
var ingressComponents = []struct {
	name string
	port int
}{{"nginx", 80}, {"traefik", 9080}}

// measureIngress gives the figures of all controllers: of their traffic for a time, and with
// so many Ingresses.
func measureIngress(lab *harness.Lab, tb harness.TB, traffic time.Duration, ingresses int) (*ingressFigures, error) {
	figures := &ingressFigures{What: fmt.Sprintf("a pod that answers with its name, asked from a host outside of the cluster over %d kept connections: "+
		"as fast as it answers, and %d times a second; client, proxy and pod share the machine", trafficClients, trafficRate)}
	var err error
	if traffic > 0 {
		if figures.Traffic, err = measureTraffic(lab, tb, traffic); err != nil {
			return nil, err
		}
	}
	if ingresses > 0 {
		figures.Controllers = map[string]controllerFigures{}
		for _, i := range ingressComponents {
			if figures.Controllers["ingress."+i.name], err = measureController(lab, tb, i.name, ingresses); err != nil {
				return nil, fmt.Errorf("measure ingress.%s: %w", i.name, err)
			}
		}
	}
	return figures, nil
}

const (
	trafficRounds  = 3
	trafficClients = 32
	trafficRate    = 1000
	stockPort      = 9000
)

// measureTraffic asks a pod through each ingress, through a bare nginx and directly, in turns.
func measureTraffic(lab *harness.Lab, tb harness.TB, length time.Duration) (map[string]trafficFigures, error) {
	own := &harness.Bench{}
	defer own.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute+8*trafficRounds*length)
	defer cancel()
	c, err := ingressCluster(ctx, lab, own, "enable: [ingress=nginx, ingress=traefik]\ncomponents:\n  ingress.traefik:\n    httpPort: 9080\n    httpsPort: 9443\n")
	if err != nil {
		return nil, err
	}
	pods, err := c.pods(ctx, 1)
	if err != nil {
		return nil, err
	}
	if err := c.stockNginx(ctx, own, pods[0]); err != nil {
		return nil, err
	}
	targets := map[string]string{"stock nginx": c.url("stock.example", stockPort)}
	direct, err := c.client.CoreV1().Services("default").Get(ctx, "direct", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	targets["pod"] = c.url("direct.example", int(direct.Spec.Ports[0].NodePort))
	for _, i := range ingressComponents {
		host := i.name + ".example"
		if err := c.create(ctx, i.name, i.name, host); err != nil {
			return nil, err
		}
		targets["ingress."+i.name] = c.url(host, i.port)
	}
	for name, url := range targets {
		if _, err := c.first(ctx, url); err != nil {
			return nil, fmt.Errorf("ask %s: %w", name, err)
		}
	}
	figures, err := c.rounds(ctx, tb, targets, length)
	c.node.Stop(own)
	if own.Failed() {
		tb.Errorf("the measurement of the ingresses' traffic failed")
	}
	return figures, err
}

// rounds asks the targets in turns, so that a noisy neighbour of the machine meets all.
func (c *ingressLab) rounds(ctx context.Context, tb harness.TB, targets map[string]string, length time.Duration) (map[string]trafficFigures, error) {
	rates, p50s, p99s := map[string][]float64{}, map[string][]time.Duration{}, map[string][]time.Duration{}
	cpu, failed := map[string][]float64{}, map[string]uint64{}
	names := []string{"pod", "stock nginx"}
	for _, i := range ingressComponents {
		names = append(names, "ingress."+i.name)
	}
	for turn := range trafficRounds {
		for _, name := range names {
			load := httpload.Load{URL: targets[name], Transport: c.web, For: length, Clients: trafficClients}
			before, err := c.cpuOf(ctx, name)
			if err != nil {
				return nil, err
			}
			fast, err := httpload.Run(ctx, load)
			if err != nil {
				return nil, err
			}
			after, err := c.cpuOf(ctx, name)
			if err != nil {
				return nil, err
			}
			load.Rate = trafficRate
			steady, err := httpload.Run(ctx, load)
			if err != nil {
				return nil, err
			}
			tb.Logf("round %d, %s: %.0f requests a second; at %d: p50 %s, p99 %s; %d failed: %v", turn+1, name, fast.Rate,
				trafficRate, steady.P50, steady.P99, fast.Failed+steady.Failed, append(fast.Errors, steady.Errors...))
			rates[name], p50s[name], p99s[name] = append(rates[name], round(fast.Rate)), append(p50s[name], steady.P50), append(p99s[name], steady.P99)
			cpu[name] = append(cpu[name], round((after-before).Seconds()*1e6/float64(max(fast.Requests, 1))))
			failed[name] += fast.Failed + steady.Failed
		}
	}
	stock := sumUpFigures(rates["stock nginx"]).Median
	figures := map[string]trafficFigures{}
	for _, name := range names {
		f := trafficFigures{RequestsPerSecond: sumUpFigures(rates[name]), P50: sumUp(p50s[name]), P99: sumUp(p99s[name]),
			CPU: sumUpFigures(cpu[name]), Failed: failed[name]}
		if stock > 0 {
			f.OfStock = round(f.RequestsPerSecond.Median / stock)
		}
		figures[name] = f
	}
	return figures, nil
}

// ingressLab is a cluster with ingress controllers, and a client outside of it.
type ingressLab struct {
	node    *harness.Node
	client  *kubernetes.Clientset
	outside *harness.Host
	web     *http.Transport
	stock   *harness.Cmd
}

// url is that of a host's name at a port of the node.
func (c *ingressLab) url(host string, port int) string {
	if port == 80 {
		return "http://" + host + "/"
	}
	return fmt.Sprintf("http://%s:%d/", host, port)
}

// ingressCluster boots a node with a configuration file and two echo pods.
func ingressCluster(ctx context.Context, lab *harness.Lab, tb harness.TB, config string) (*ingressLab, error) {
	archives, err := buildImages(lab)
	if err != nil {
		return nil, err
	}
	h := lab.NewHost(tb, "ingress")
	dir := filepath.Join(h.DataDir, "agent", "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, os.DirFS(archives)); err != nil {
		return nil, err
	}
	if err := os.WriteFile(h.ConfigFile, []byte(config), 0o600); err != nil {
		return nil, err
	}
	c := &ingressLab{outside: lab.NewHost(tb, "client")}
	c.node = h.Serve(tb)
	c.web = c.outside.Transport(h.Addr)
	tb.Cleanup(c.web.CloseIdleConnections)
	if c.client, err = c.node.WaitReady(ctx); err != nil {
		return nil, err
	}
	cfg, err := c.node.Config()
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1 // what is measured is not this client's limit
	if c.client, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, err
	}
	if _, err := waitComponents(ctx, c.node, allReady); err != nil {
		return nil, err
	}
	return c, c.deploy(ctx)
}

// deploy makes the pods "one" and "two", the Service "echo" for both, and "direct", which is
// asked by its node port.
func (c *ingressLab) deploy(ctx context.Context) error {
	for _, name := range []string{"one", "two"} {
		labels := map[string]string{"app": "echo", "pod": name}
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "echo", Image: images.Echo, Env: []corev1.EnvVar{{Name: "QUIET", Value: "1"}}}}},
			},
		}}
		if _, err := c.client.AppsV1().Deployments("default").Create(ctx, d, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	ports := []corev1.ServicePort{{Port: 80, TargetPort: intOrString(8080)}}
	for name, spec := range map[string]corev1.ServiceSpec{
		"echo":   {Selector: map[string]string{"pod": "one"}, Ports: ports},
		"direct": {Selector: map[string]string{"pod": "one"}, Ports: ports, Type: corev1.ServiceTypeNodePort},
	} {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
		if _, err := c.client.CoreV1().Services("default").Create(ctx, s, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	_, err := c.pods(ctx, 2)
	return err
}

// pods waits until both pods are ready and gives the addresses of the first n.
func (c *ingressLab) pods(ctx context.Context, n int) ([]string, error) {
	var addresses []string
	err := harness.WaitAll(ctx, c.client.CoreV1().Pods("default"), "app=echo", func(pods []*corev1.Pod) (bool, string) {
		addresses = nil
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
		for _, p := range pods {
			for _, cond := range p.Status.Conditions {
				if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
					addresses = append(addresses, p.Status.PodIP)
				}
			}
		}
		return len(addresses) == 2, fmt.Sprintf("%d pods are ready", len(addresses))
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the pods: %w", err)
	}
	return addresses[:n], nil
}

// stockNginx starts the distribution's nginx in the node's host, as a bare reverse proxy to a
// pod: as many workers as there are CPUs, connections kept on both sides, no log.
func (c *ingressLab) stockNginx(ctx context.Context, tb harness.TB, pod string) error {
	dir := filepath.Join(c.outside.Dir, "nginx")
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return err
	}
	config := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log stderr warn; worker_processes auto; worker_rlimit_nofile 4096;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	upstream pod { server %[2]s:8080; keepalive 64; }
	server {
		listen %[3]d;
		location / { proxy_pass http://pod; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; }
	}
}
`, dir, pod, stockPort)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return err
	}
	c.stock = c.node.Host.Command(ctx, "/usr/sbin/nginx", "-p", dir, "-c", path)
	c.stock.Stderr = os.Stderr
	if err := c.stock.Start(); err != nil {
		return fmt.Errorf("start nginx: %w: install Debian's package nginx", err)
	}
	tb.Cleanup(func() {
		_ = c.stock.Cancel() // it may have ended by itself
		_ = c.stock.Wait()
	})
	return nil
}
