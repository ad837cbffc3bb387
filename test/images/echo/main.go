// Command echo is the workload of the end-to-end tests: an HTTP server that tells about
// itself and its callers, whose probes can be made to fail, and which ends gracefully.
//
//	/            the pod's name
//	/version     $VERSION, which differs between the images
//	/client      the caller's IP address
//	/env?name=   an environment variable
//	/file?path=  a file
//	/fetch?url=  what a GET from here answers
//	/api?path=   what the Kubernetes API answers to this pod's service account
//	/ready, /live   200, or 503 after a POST to them
//	/websocket   a WebSocket that sends each message back
//	any other, and / asked for as application/json: the request as it was seen (package answer)
//
// It listens on $PORT (8080), on each of $MORE_PORTS (by commas), with TLS and a certificate
// that nobody signed on $TLS_PORT, and serves gRPC's health service on $GRPC_PORT.
//
// Each request is one line on standard output, unless $QUIET is set; so is each line of
// standard input.
package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			fmt.Println("input:", in.Text())
		}
	}()
	if err := serve(ctx); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// serve listens on all ports until ctx ends and what is under way then is answered.
func serve(ctx context.Context) error {
	ports := append([]string{cmp.Or(os.Getenv("PORT"), "8080")}, split(os.Getenv("MORE_PORTS"))...)
	server := &http.Server{Handler: logged(routes())}
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	grpcServer := healthServer()
	ended := make(chan error)
	serving := 0
	listen := func(port string, serve func(net.Listener) error) error {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+port)
		if err != nil {
			return err
		}
		fmt.Println("listening on :" + port)
		serving++
		go func() { ended <- serve(ln) }()
		return nil
	}
	for _, port := range ports {
		err = errors.Join(err, listen(port, server.Serve))
	}
	for _, port := range split(os.Getenv("TLS_PORT")) {
		err = errors.Join(err, listen(port, func(ln net.Listener) error { return server.ServeTLS(ln, "", "") }))
	}
	for _, port := range split(os.Getenv("GRPC_PORT")) {
		err = errors.Join(err, listen(port, grpcServer.Serve))
	}
	if err != nil {
		return err
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		<-ctx.Done()
		fmt.Println("draining")
		// Traffic keeps coming until every node knows that this pod is going.
		if pause, err := time.ParseDuration(os.Getenv("DRAIN")); err == nil {
			time.Sleep(pause)
		}
		_ = server.Shutdown(context.Background()) // the process ends anyway
		grpcServer.GracefulStop()
	}()
	for range serving {
		if err := <-ended; err != nil && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
	}
	<-drained
	return nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func routes() http.Handler {
	mux := http.NewServeMux()
	text := func(path string, f func(*http.Request) (string, error)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			body, err := f(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			fmt.Fprint(w, body)
		})
	}
	mux.HandleFunc("/", reflected)
	mux.HandleFunc("/websocket", webSocket)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Accept") == "application/json" {
			reflected(w, r)
			return
		}
		name, _ := os.Hostname()
		fmt.Fprint(w, name)
	})
	text("/version", func(*http.Request) (string, error) { return os.Getenv("VERSION"), nil })
	text("/client", func(r *http.Request) (string, error) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		return host, err
	})
	text("/env", func(r *http.Request) (string, error) { return os.Getenv(r.FormValue("name")), nil })
	text("/file", func(r *http.Request) (string, error) {
		body, err := os.ReadFile(r.FormValue("path"))
		return string(body), err
	})
	// A new connection each time: an old one goes on through a NetworkPolicy that allows no new ones.
	once := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	text("/fetch", func(r *http.Request) (string, error) {
		return fetch(r.Context(), once, r.FormValue("url"), "")
	})
	text("/api", api)
	for _, path := range []string{"/ready", "/live"} {
		var broken atomic.Bool
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if broken.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		mux.HandleFunc("POST "+path, func(http.ResponseWriter, *http.Request) { broken.Store(true) })
	}
	return mux
}

func logged(h http.Handler) http.Handler {
	if os.Getenv("QUIET") != "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		fmt.Println(r.Method, r.URL)
	})
}

// api asks the Kubernetes API with what is mounted into every pod.
func api(r *http.Request) (string, error) {
	ca, err := os.ReadFile(serviceAccount + "ca.crt")
	if err != nil {
		return "", err
	}
	token, err := os.ReadFile(serviceAccount + "token")
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	address := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	return fetch(r.Context(), client, "https://"+address+r.FormValue("path"), string(token))
}

func fetch(ctx context.Context, client *http.Client, url, token string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}
