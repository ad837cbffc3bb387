// Command k3m-traefik is the component ingress.traefik. It is an executable and a module of its own because Traefik's
// dependencies clash with the core's.
package main

import (
	"github.com/k3m-io/k3m/plugins/ingress/traefik"
	"github.com/k3m-io/k3m/sdk"
)

func main() { sdk.Serve(traefik.New()) }
