package logging

import (
	"errors"
	"testing"

	"k8s.io/klog/v2"
)

// TestNoiseOfAHealthyStart: lines that each healthy start, exec and swap gives are demoted, and
// only those: the same message with another error, or the same error from elsewhere, stays.
func TestNoiseOfAHealthyStart(t *testing.T) {
	const (
		stale   = "unable to retrieve the complete list of server APIs: metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1"
		spec    = "failed to download v1beta1.metrics.k8s.io: failed to retrieve openAPI spec, http error: ResponseCode: 503, Body: service unavailable\n, Header: map[]"
		receive = "read tcp 10.0.0.1:43210->10.0.0.1:10250: use of closed network connection"
	)
	for _, tc := range []struct {
		origin, message, err string
		noise                bool
	}{
		{"apiserver", `error resolving kube-system/metrics-server: no endpoints available for service "metrics-server"`, "", true},
		{"apiserver", `error resolving shop/payments: no endpoints available for service "payments"`, "", false},
		{"apiserver", "no RequestInfo found in the context", "", true},
		{"apiserver", "Unhandled Error", `loading OpenAPI spec for "v1beta1.metrics.k8s.io" failed with: ` + spec, true},
		{"apiserver", "Unhandled Error", `loading OpenAPI spec for "v1beta1.metrics.k8s.io" failed with: Error, could not get list of group versions for APIService`, true},
		{"apiserver", "Unhandled Error", `loading OpenAPI spec for "v1.shop.example" failed with: ` + spec, false},
		{"apiserver", "Unhandled Error", `Error updating APIService "v1beta1.metrics.k8s.io" with err: ` + spec, true},
		{"apiserver", "Unhandled Error", "v1beta1.metrics.k8s.io failed with: failing or missing response from https://10.0.0.1:1/apis/metrics.k8s.io/v1beta1: bad status from https://10.0.0.1:1/apis/metrics.k8s.io/v1beta1: 503", true},
		{"apiserver", "Unhandled Error", "v1beta1.metrics.k8s.io failed with: failing or missing response from https://10.0.0.1:1/apis/metrics.k8s.io/v1beta1: x509: certificate signed by unknown authority", false},
		{"apiserver", "Unhandled Error", `unable to reconcile role.rbac.authorization.k8s.io/x in kube-system: namespaces "kube-system" not found`, true},
		{"apiserver", "Unhandled Error", `namespaces "shop" not found`, false},
		{"controller-manager", "Error during resource discovery", stale, true},
		{"controller-manager", "Unable to get all supported resources from server", stale, true},
		{"controller-manager", "Initial discovery check failure, continuing and counting on future sync update", stale, true},
		{"controller-manager", "Error during resource discovery", stale + ", shop.example/v1: stale GroupVersion discovery: shop.example/v1", false},
		{"controller-manager", "Deletion of namespace failed", stale, false},
		{"kubernetes", "Failed to ensure lease exists, will retry", `namespaces "kube-system" not found`, true},
		{"kubernetes", "Failed to ensure lease exists, will retry", "connection refused", false},
		{"kubernetes", "Error on socket receive", receive, true},
		{"kubernetes", "Error on socket receive", "read tcp 10.0.0.1:43210->10.0.0.1:10250: connection reset by peer", false},
		{"kubelet", "Error on socket receive", receive, false},
	} {
		var err error
		if tc.err != "" {
			err = errors.New(tc.err)
		}
		if got := isNoise(tc.origin, tc.message, err); got != tc.noise {
			t.Errorf("noise is %v: %s: %s: %s", got, tc.origin, tc.message, tc.err)
		}
	}
}

// TestNoiseIsNotWritten: what is noise is not in the log, neither klog's nor the components'.
func TestNoiseIsNotWritten(t *testing.T) {
	l, out := newTestLog(t, Options{})
	kubernetes(func() {
		klog.ErrorS(errors.New("read tcp 10.0.0.1:1->10.0.0.1:2: use of closed network connection"), "Error on socket receive")
		klog.ErrorS(errors.New("connection reset by peer"), "Error on socket receive")
	})
	components := l.Components()
	components.Warn("[core] [Server #1] grpc: Server.processRPC failed to write status: connection error: desc = \"transport is closing\"")
	components.Warn("[core] [Server #1] grpc: Server.processRPC failed to write status: out of memory")
	want := `ERROR kubernetes: Error on socket receive err="connection reset by peer"` + "\n" +
		"WARN  components: [core] [Server #1] grpc: Server.processRPC failed to write status: out of memory\n"
	if got := without(t, out); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
