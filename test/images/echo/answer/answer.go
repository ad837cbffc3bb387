// Package answer is what the echo server of the tests says about a request, for the server
// and for the tests that read it.
package answer

// Answer tells which server answered, and the request as that server saw it.
type Answer struct {
	// Pod is the server's host name, Version its $VERSION.
	Pod     string `json:"pod"`
	Version string `json:"version"`
	// Port is the server's port that the request came to. One pod is many backends: each
	// port of it is one.
	Port int `json:"port"`
	// Client is the address that the connection came from.
	Client string `json:"client"`

	Method string `json:"method"`
	// Path is the path as it was sent, Query what follows the question mark.
	Path  string `json:"path"`
	Query string `json:"query,omitempty"`
	// Host is the Host header, Proto the version of HTTP: "HTTP/1.1".
	Host  string `json:"host"`
	Proto string `json:"proto"`
	// Header are the other headers, by their canonical names.
	Header map[string][]string `json:"header"`
	// BodyBytes counts the body.
	BodyBytes int64 `json:"bodyBytes"`
	// TLS is what was agreed on, nil for a connection without it.
	TLS *TLS `json:"tls,omitempty"`
}

// TLS is what client and server of a connection agreed on.
type TLS struct {
	// ServerName is the name that the client asked for (SNI).
	ServerName string `json:"serverName"`
	// Protocol is the application protocol (ALPN): "h2", "http/1.1" or none.
	Protocol string `json:"protocol"`
}

// Pod is the header that names the pod, for those who do not read the body.
const Pod = "X-Echo-Pod"
