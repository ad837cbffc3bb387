package apitest

import (
	"testing"

	"github.com/k3m-io/k3m/test/apiserver"
	"k8s.io/client-go/rest"
)

// startAPI runs an API server and returns an administrator's configuration.
func startAPI(t *testing.T) *rest.Config {
	t.Helper()
	return apiserver.Start(t)
}
