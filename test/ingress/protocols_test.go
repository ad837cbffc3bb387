package ingress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/test/images/echo/answer"
)

// largeRequest: a body goes through whole. A megabyte is what even the strictest default takes.
func largeRequest(s *scene, _ controller) {
	const size = 1 << 20
	s.ingresses(simple("large", rule("large.example", "Prefix", "/", "a")))
	s.become(ask{url: "http://large.example/", backend: "a"})
	client := &http.Client{Transport: s.web, Timeout: 10 * time.Second}
	req, err := http.NewRequestWithContext(s.Context(), http.MethodPost, "http://large.example/upload", io.LimitReader(zeros{}, size))
	if err != nil {
		s.Fatal(err)
	}
	req.ContentLength = size
	resp, err := client.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	text, err := body(resp)
	if err != nil {
		s.Fatal(err)
	}
	got, err := read(resp, text)
	if err != nil {
		s.Fatal(err)
	}
	if got.BodyBytes != size || got.Method != http.MethodPost {
		s.Errorf("the backend got a %s of %d bytes", got.Method, got.BodyBytes)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// webSocket sends messages back and forth, with and without TLS.
func webSocket(s *scene, _ controller) {
	const host = "socket.example"
	cert := valid(s.T, "tls-"+host)
	s.secret(tlsSecret("socket", cert))
	s.ingresses(simple("socket", rule(host, "Prefix", "/", "a")) + "---\n" + secured("socket-tls", "tls-"+host, "socket", "b"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert.cert)
	dialer := websocket.Dialer{NetDialContext: s.web.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}, HandshakeTimeout: 5 * time.Second}
	for _, url := range []string{"ws://" + host + "/websocket", "wss://tls-" + host + "/websocket"} {
		eventually(s.T, url+" sends messages back", func(ctx context.Context) error {
			conn, resp, err := dialer.DialContext(ctx, url, nil)
			if err != nil {
				if resp != nil {
					return fmt.Errorf("%w: %s", err, resp.Status)
				}
				return err
			}
			defer conn.Close()
			for _, message := range []string{"one", strings.Repeat("two", 10_000)} {
				if err := conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
					return err
				}
				if _, back, err := conn.ReadMessage(); err != nil || string(back) != message {
					return fmt.Errorf("%d bytes came back for %d: %w", len(back), len(message), err)
				}
			}
			return nil
		})
	}
}

// http2: the ingress speaks it with clients that can, over TLS.
func http2(s *scene, _ controller) {
	const host = "http2.example"
	cert := valid(s.T, host)
	s.secret(tlsSecret("http2", cert))
	s.ingresses(secured("http2", host, "http2", "a"))
	client := s.trusting(cert)
	eventually(s.T, "an answer comes over HTTP/2", func(ctx context.Context) error {
		resp, text, err := send(ctx, client, http.MethodGet, "https://"+host+"/", nil)
		if err != nil {
			return err
		}
		if resp.ProtoMajor != 2 {
			return fmt.Errorf("it came over %s", resp.Proto)
		}
		_, err = read(resp, text)
		return err
	})
	// Who can't, is served too.
	old := s.trusting(cert).Transport.(*http.Transport)
	old.ForceAttemptHTTP2 = false
	old.TLSClientConfig.NextProtos = []string{"http/1.1"}
	s.answers(&http.Client{Transport: old, Timeout: 5 * time.Second}, "https://"+host+"/", "a")
}

// grpcBackend calls gRPC's health service through the ingress.
func grpcBackend(s *scene, c controller) {
	const host = "grpc.example"
	cert := valid(s.T, host)
	s.secret(tlsSecret("grpc", cert))
	text := secured("grpc", host, "grpc", "grpc")
	if c.grpc.onService {
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, c.grpc.key, c.grpc.value)
		if _, err := s.client.CoreV1().Services(s.ns).Patch(s.Context(), "grpc", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			s.Fatal(err)
		}
	} else {
		text = strings.Replace(text, "{name: grpc}", fmt.Sprintf("{name: grpc, annotations: {%s: %s}}", c.grpc.key, c.grpc.value), 1)
	}
	s.ingresses(text)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert.cert)
	conn, err := grpc.NewClient("passthrough:///"+host+":443",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: host})),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return s.web.DialContext(ctx, "tcp", addr) }))
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	pods := map[string]bool{}
	eventually(s.T, "calls reach the pods", func(ctx context.Context) error {
		var header metadata.MD
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		got, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Header(&header))
		if err != nil {
			return err
		}
		if got.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("the service is %s", got.Status)
		}
		for _, pod := range header.Get(answer.Pod) {
			pods[pod] = true
		}
		if len(pods) < podCount { // each call on its own is balanced, over one connection
			return fmt.Errorf("these pods answered: %v", pods)
		}
		return nil
	})
}
