package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

// reconfigure writes the configuration file and tells the server, as an operator does after
// an edit.
func (s *scene) reconfigure(text string) {
	s.Helper()
	if err := os.WriteFile(s.node.Host.ConfigFile, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	if err := syscall.Kill(s.node.Pid(), syscall.SIGHUP); err != nil {
		s.Fatal(err)
	}
}

// leavesNothing disables the controller; everything of it goes, and nothing but it.
func leavesNothing(s *scene, c controller) {
	core := s.node.Pid()
	s.reconfigure(file(nil))
	s.noComponent(c.id())
	s.nothingLeft(c)
	if !s.node.Running() || s.node.Pid() != core {
		s.Error("the server was restarted")
	}
}

// podGateway is the address at which the controllers listen.
const podGateway = "10.42.0.1"

// nothingLeft waits until a controller has left no object, process, listener or rule.
func (s *scene) nothingLeft(c controller) {
	s.Helper()
	eventually(s.T, "nothing is left of "+c.id(), func(ctx context.Context) error {
		var left []error
		found := func(what string, n int, err error) {
			switch {
			case err != nil:
				left = append(left, fmt.Errorf("%s: %w", what, err))
			case n > 0:
				left = append(left, fmt.Errorf("%s: %d", what, n))
			}
		}
		services, err := s.client.CoreV1().Services("kube-system").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + c.service})
		found("the Service "+c.service, len(services.Items), err)
		slices, err := s.client.DiscoveryV1().EndpointSlices("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + c.service})
		found("EndpointSlices", len(slices.Items), err)
		classes, err := s.client.NetworkingV1().IngressClasses().List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + c.name})
		found("the IngressClass", len(classes.Items), err)
		if c.crds != "" {
			out, err := s.node.Kubectl(ctx, "get", "crd", "-o", "name")
			found("CustomResourceDefinitions", strings.Count(out, "."+c.crds), err)
		}
		for _, p := range s.mustProcesses() {
			if strings.HasSuffix(p.Cmdline, c.id()) || c.child != "" && strings.HasPrefix(p.Cmdline, c.child) {
				left = append(left, fmt.Errorf("process %d: %s", p.Pid, p.Cmdline))
			}
		}
		rules, err := s.node.Host.Command(ctx, "nft", "list", "ruleset").Output()
		if err != nil {
			return err
		}
		for _, port := range c.ports {
			found(fmt.Sprintf("rules for port %d", port), strings.Count(rules, fmt.Sprintf("%s . tcp . %d", podGateway, port)), nil)
		}
		return errors.Join(left...)
	})
}

// heldPorts: while a process of the host has port 80, it goes on answering there, and the
// component says who is in the way; when that process ends, the ingress takes over.
func heldPorts(s *scene, c controller) {
	const url = "http://held.example/"
	s.ingresses(ofClass("held", c.name, "held.example", "a"))
	ctx, stop := context.WithCancel(within(s.T, 5*patience))
	defer stop()
	holder := s.node.Host.Command(ctx, "/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/run")
	if err := holder.Start(); err != nil {
		s.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = holder.Wait() }() // it is killed below
	s.Cleanup(func() { stop(); <-ended })
	eventually(s.T, "the process has port 80", func(context.Context) error {
		for _, l := range s.node.Host.Listening(s.T) {
			if l.Addr.Port() == 80 {
				return nil
			}
		}
		return errors.New("nobody listens there")
	})
	s.reconfigure(file([]controller{c}, c.block()))
	degraded := s.component(c.id(), func(h harness.Component) bool { return strings.Contains(h.Reason+h.LastErr, "busybox") })
	if !strings.EqualFold(degraded.State, "degraded") {
		s.Errorf("the component is %+v", degraded)
	}
	if !strings.Contains(degraded.Reason, "80") {
		s.Errorf("the reason does not name the port: %s", degraded.Reason)
	}
	s.become(ask{url: url, status: http.StatusNotFound}) // the process's own answer
	stop()
	<-ended
	s.component(c.id(), harness.Component.Ready)
	s.become(ask{url: url, backend: "a"})
}

// noLoadBalancer: with the service load balancer off the Service pends, and its node ports
// answer; hostPorts binds the node's own.
func noLoadBalancer(s *scene, c controller) {
	const url = "http://unbalanced.example"
	s.ingresses(ofClass("unbalanced", c.name, "unbalanced.example", "a"))
	off := "disable: [servicelb]\n"
	s.reconfigure(off + file([]controller{c}, c.block()))
	s.noComponent("servicelb.nodeip")
	svc := s.service(c, func(svc *corev1.Service) bool { return len(svc.Status.LoadBalancer.Ingress) == 0 })
	s.component(c.id(), harness.Component.Ready)
	s.become(ask{url: fmt.Sprintf("%s:%d/", url, svc.Spec.Ports[0].NodePort), backend: "a"})
	eventually(s.T, "port 80 is nobody's", func(ctx context.Context) error { // the packet filter follows the Service's status
		conn, err := s.web.DialContext(ctx, "tcp", "unbalanced.example:80")
		if err == nil {
			conn.Close()
			return errors.New("somebody answers there")
		}
		return nil
	})
	s.Run("hostPorts", func(t *testing.T) {
		s := s.in(t)
		s.reconfigure(off + file([]controller{c}, c.block("hostPorts: true")))
		s.become(ask{url: url + "/", backend: "a"})
		// The client is the one who asked, though kube-proxy has no part in it.
		s.become(ask{url: url + "/", backend: "a", also: from(s.outside.Addr.String())})
		if _, err := s.presented(""); err != nil {
			t.Errorf("port 443: %v", err)
		}
	})
	s.reconfigure(file([]controller{c}, c.block()))
	s.service(c, func(svc *corev1.Service) bool { return len(svc.Status.LoadBalancer.Ingress) == 1 })
	s.become(ask{url: url + "/", backend: "a"})
}

// service waits until the controller's Service is as wanted.
func (s *scene) service(c controller, is func(*corev1.Service) bool) *corev1.Service {
	s.Helper()
	var found *corev1.Service
	err := harness.Wait(within(s.T, patience), s.client.CoreV1().Services("kube-system"), c.service, func(svc *corev1.Service) (bool, string) {
		found = svc
		return is(svc), fmt.Sprintf("it is %+v with %v", svc.Spec, svc.Status.LoadBalancer.Ingress)
	})
	if err != nil {
		s.Fatalf("wait for the Service %s: %v", c.service, err)
	}
	return found
}
