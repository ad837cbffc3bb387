package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// FuzzJoinRequest gives the join route's parser whatever somebody with a token could send.
func FuzzJoinRequest(f *testing.F) {
	csr, _, err := pki.NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(wire.JoinRequest{
		NodeName:          "node-1",
		NodePassword:      "0123456789abcdef",
		NodeIPs:           []string{"192.0.2.1", "fd00::1", "::ffff:192.0.2.2"},
		KubeletClientCSR:  string(csr),
		KubeletServingCSR: string(csr),
		KubeProxyCSR:      string(csr),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"nodeName":"a","nodeIPs":["1.2.3.4"]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req wire.JoinRequest
		if err := decode(bytes.NewReader(body), &req); err != nil {
			mustRefuse(t, err)
			return
		}
		node, err := checkJoin(&req)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if node.kubeletClient == nil || node.kubeletServing == nil || node.proxy == nil || len(node.names.IPs) < 1 {
			t.Errorf("accepted %q as %+v", body, node)
		}
	})
}

// mustRefuse wants an answer that blames the other side, not the server.
func mustRefuse(t *testing.T, err error) {
	t.Helper()
	var r *refusal
	if !errors.As(err, &r) || r.status < 400 || r.status > 499 || r.message == "" {
		t.Errorf("error %v", err)
	}
}
