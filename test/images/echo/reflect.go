package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gorilla/websocket"

	"github.com/k3m-io/k3m/test/images/echo/answer"
)

// reflected answers with the request as it was seen here. The header X-Echo-Status chooses
// the status, X-Echo-Wait how long the answer takes, in Go's notation.
func reflected(w http.ResponseWriter, r *http.Request) {
	a := answer.Answer{
		Version: os.Getenv("VERSION"), Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
		Host: r.Host, Proto: r.Proto, Header: r.Header,
	}
	a.Pod, _ = os.Hostname()
	a.Client, _, _ = net.SplitHostPort(r.RemoteAddr)
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		a.Port = local.Port
	}
	if r.TLS != nil {
		a.TLS = &answer.TLS{ServerName: r.TLS.ServerName, Protocol: r.TLS.NegotiatedProtocol}
	}
	a.BodyBytes, _ = io.Copy(io.Discard, r.Body) // what arrived until the client gave up
	if pause, err := time.ParseDuration(r.Header.Get("X-Echo-Wait")); err == nil {
		select {
		case <-time.After(pause):
		case <-r.Context().Done():
		}
	}
	status := http.StatusOK
	if s, err := strconv.Atoi(r.Header.Get("X-Echo-Status")); err == nil && s >= 200 && s < 600 {
		status = s
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(answer.Pod, a.Pod)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a) // the client may have gone
}

// webSocket sends each message back.
func webSocket(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := up.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer conn.Close()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil || conn.WriteMessage(kind, message) != nil {
			return
		}
	}
}

// selfSigned is a certificate for a backend that speaks TLS itself.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, DNSNames: []string{"echo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
