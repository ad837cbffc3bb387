package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func intOrString(port int) intstr.IntOrString { return intstr.FromInt32(int32(port)) }

// create makes an Ingress of a class that sends a host's requests to the Service echo.
func (c *ingressLab) create(ctx context.Context, name, class, host string) error {
	return c.createFor(ctx, name, class, host, "echo")
}

// createFor makes an Ingress of a class that sends a host's requests to a Service.
func (c *ingressLab) createFor(ctx context.Context, name, class, host, service string) error {
	backend := networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service, Port: networkingv1.ServiceBackendPort{Number: 80}}}
	ing := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"bench": class}},
		Spec: networkingv1.IngressSpec{IngressClassName: &class, Rules: []networkingv1.IngressRule{{
			Host: host,
			IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
				{Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix), Backend: backend},
			}}},
		}}},
	}
	_, err := c.client.NetworkingV1().Ingresses("default").Create(ctx, ing, metav1.CreateOptions{})
	return err
}

// askEvery is how often a client asks that waits for an answer.
const askEvery = 2 * time.Millisecond

// first asks, over a new connection each time, until there is a 200, and gives its body.
func (c *ingressLab) first(ctx context.Context, url string) (string, error) {
	return c.until(ctx, url, func(string) bool { return true })
}

// until asks until a 200 has the wanted body.
func (c *ingressLab) until(ctx context.Context, url string, is func(body string) bool) (string, error) {
	transport := c.web.Clone()
	transport.DisableKeepAlives = true
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	for {
		status, body, err := getOnce(ctx, client, url)
		if err == nil && status == http.StatusOK && is(body) {
			return body, nil
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return "", fmt.Errorf("%w: the last answer of %s is %d %.100q, %w", context.Cause(ctx), url, status, body, err)
		}
	}
}

func getOnce(ctx context.Context, client *http.Client, url string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, string(body), err
}

// tree are the processes of a target: the component's and all that descend from it, by their
// IDs outside of the host. A pod has none.
func (c *ingressLab) tree(ctx context.Context, target string) ([]int, error) {
	var root int
	switch {
	case target == "stock nginx":
		root = c.stock.Process.Pid
	case strings.HasPrefix(target, "ingress."):
		all, err := processesOf(ctx, c.node)
		if err != nil {
			return nil, err
		}
		if root = all[target]; root == 0 {
			return nil, fmt.Errorf("component %s has no process", target)
		}
	default:
		return nil, nil
	}
	parents, err := parentPids()
	if err != nil {
		return nil, err
	}
	tree := []int{root}
	for n := 0; n < len(tree); n++ {
		for pid, parent := range parents {
			if parent == tree[n] {
				tree = append(tree, pid)
			}
		}
	}
	return tree, nil
}

// parentPids maps the machine's processes to their parents.
func parentPids() (map[int]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	parents := map[int]int{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		// The second field, in parentheses, may hold anything; the parent is the fourth.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) < 2 {
			continue
		}
		if parents[pid], err = strconv.Atoi(fields[1]); err != nil {
			return nil, err
		}
	}
	return parents, nil
}

// cpuOf is the time that a target's processes have had so far.
func (c *ingressLab) cpuOf(ctx context.Context, target string) (time.Duration, error) {
	tree, err := c.tree(ctx, target)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, pid := range tree {
		r, err := readCounters(pid)
		if err != nil {
			continue // a worker that has ended meanwhile
		}
		ticks += r.ticks
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// pssOf is the memory of a component's processes together.
func (c *ingressLab) pssOf(ctx context.Context, id string) (int64, error) {
	tree, err := c.tree(ctx, id)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range tree {
		m, err := readMemory(pid)
		if err != nil {
			continue // a worker that has ended meanwhile
		}
		sum += m.PSSBytes
	}
	return sum, nil
}
