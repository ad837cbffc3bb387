package controlplane

import (
	"net/http"
	"strings"
)

// ControllersBuilt is closed when the controller-manager has built all its controllers, before
// any of them runs. A kubelet of the same process starts its volume plugins after it: see package
// agent.
func (c *ControlPlane) ControllersBuilt() <-chan struct{} { return c.built }

// sharedInformers is how the controller-manager names the client of its informers, at the end of
// the user agent. They are started when the last controller is built.
const sharedInformers = "/shared-informers"

// seeControllersBuilt looks for the informers' first request to the API; the one for the API
// server's health, before that, is to another path.
func (c *ControlPlane) seeControllersBuilt(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if strings.HasPrefix(r.URL.Path, "/api") && strings.HasSuffix(r.UserAgent(), sharedInformers) {
			c.builtOnce.Do(func() { close(c.built) })
		}
		return next.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
