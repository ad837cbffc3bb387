// Package identity watches over a component's credentials for the Kubernetes API.
package identity

import (
	"net/http"

	"k8s.io/client-go/rest"
)

// Watch has refused called at each answer to a client of config that says that the credentials
// are not good (any more): then the component ends, and is given new ones. refused may be called
// by several goroutines.
func Watch(config *rest.Config, refused func()) {
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(request *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(request)
			if err == nil && response.StatusCode == http.StatusUnauthorized {
				refused()
			}
			return response, err
		})
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
