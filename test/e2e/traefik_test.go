package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/test/harness"
)

// traefikRoutes are what ingress.traefik serves beside Ingresses, of which test/ingress is. The old API group is served too.
const traefikRoutes = balancedPods + `
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: traefik.io/v1alpha1
kind: Middleware
metadata: {name: strip}
spec: {stripPrefix: {prefixes: [/pre]}}
---
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: route}
spec:
  routes:
  - {kind: Rule, match: "Host(` + "`route.test`) && PathPrefix(`/pre`)" + `", middlewares: [{name: strip}], services: [{name: echo, port: 80}]}
---
apiVersion: traefik.containo.us/v1alpha1
kind: IngressRoute
metadata: {name: old}
spec:
  routes:
  - {kind: Rule, match: "Host(` + "`old.test`)" + `", services: [{name: echo, port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: stripped, annotations: {traefik.ingress.kubernetes.io/router.middlewares: NAMESPACE-strip@kubernetescrd}}
spec:
  ingressClassName: traefik
  rules: [{host: ingress.test, http: {paths: [{path: /pre, pathType: Prefix, backend: {service: {name: echo, port: {number: 80}}}}]}}]
`

func TestTraefik(t *testing.T) {
	t.Parallel()
	s := play(t)
	waitComponent(t, within(t, time.Minute), s.node, "ingress.traefik", harness.Component.Ready)
	_, err := eventually(within(t, time.Minute), func(ctx context.Context) (string, error) {
		return s.node.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "crd/middlewares.traefik.io", "crd/ingressroutes.traefik.io", "crd/ingressroutes.traefik.containo.us")
	})
	if err != nil {
		t.Fatal(err)
	}
	s.apply(strings.ReplaceAll(traefikRoutes, "NAMESPACE", s.ns))
	s.pods("app=echo", 1)
	node, outside := s.node.Host.Addr.String(), lab.Switch.HTTP()

	t.Run("routes and middlewares", func(t *testing.T) {
		s := s.as(t)
		s.answers(outside, "http://"+node+"/pre/client", "route.test", s.podGateway())
		s.answers(outside, "http://"+node+"/client", "old.test", s.podGateway())
		s.answers(outside, "http://"+node+"/pre/client", "ingress.test", s.podGateway())
	})
	t.Run("configured", func(t *testing.T) {
		s := s.as(t)
		pair := selfSigned(t, "default.test")
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		text := func(kind string, der []byte) string {
			return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
		}
		s.apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: shown}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n",
			text("CERTIFICATE", pair.Certificate[0]), text("PRIVATE KEY", key)))
		s.k3m("component", "configure", "traefik", "accessLog.enabled=true", "defaultCertificate="+s.ns+"/shown")
		// While the test's context lives, which a clean-up's does not.
		defer s.k3m("component", "configure", "traefik", "--unset", "accessLog.enabled", "--unset", "defaultCertificate")
		s.answers(outside, "http://"+node+"/pre/client", "ingress.test", s.podGateway())
		_, err = eventually(within(t, 30*time.Second), func(context.Context) (bool, error) {
			log := s.k3m("component", "logs", "traefik")
			return true, contains(log, harness.SwitchAddr.String()+" - - [", `"GET /pre/client HTTP/1.1" 200`)
		})
		if err != nil {
			t.Error("the access log: ", err)
		}
		_, err = eventually(within(t, 30*time.Second), func(ctx context.Context) (bool, error) {
			conn, err := lab.Switch.Dial(ctx, "tcp", node+":443")
			if err != nil {
				return false, err
			}
			defer conn.Close()
			client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "unknown.test"}) //nolint:gosec // who is shown is looked at below
			if err := client.HandshakeContext(ctx); err != nil {
				return false, err
			}
			if name := client.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "default.test" {
				return false, fmt.Errorf("the certificate of %s is shown", name)
			}
			return true, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("dashboard", func(t *testing.T) {
		s := s.as(t)
		url := strings.TrimSuffix(strings.TrimSpace(s.k3m("component", "dashboard", "ingress.traefik", "--url")), "dashboard/")
		s.answers(s.node.Host.HTTP(), url+"api/http/routers/"+s.ns+"-stripped-ingress-test-pre@kubernetes", "", `"status":"enabled"`)
		command := s.node.Host.K3m(within(t, time.Minute), "component", "dashboard", "traefik", "--listen", "127.0.0.1:0")
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(line, "http://")
		at, _, _ := strings.Cut(rest, ",")
		s.answers(s.node.Host.HTTP(), "http://"+at, "", "<title>ingress.traefik</title>")
		if err := command.Process.Signal(unix.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := command.Wait(); err != nil {
			t.Errorf("after ctrl-C: %v", err)
		}
	})
}

// podGateway is the address that a pod sees Traefik's requests come from: its own node's.
func (s *scene) podGateway() string { return podGateway(s.T, s) }

// answers asks until a request for a host is answered with 200 and a text that holds words.
func (s *scene) answers(client *http.Client, url, host, words string) {
	s.Helper()
	_, err := eventually(within(s.T, 30*time.Second), func(ctx context.Context) (bool, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		request.Host = host
		answer, err := client.Do(request)
		if err != nil {
			return false, err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return false, err
		}
		return true, contains(fmt.Sprintf("%d %s", answer.StatusCode, body), "200 ", words)
	})
	if err != nil {
		s.Errorf("%s for %s: %v", url, host, err)
	}
}

// contains is an error unless a text holds all words.
func contains(text string, words ...string) error {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%.2000q does not hold %q", text, w)
		}
	}
	return nil
}
