package logging

import (
	"regexp"
	"strings"
)

// noise is what Kubernetes' parts say at the level of a warning or an error, on every healthy
// node, by origin and how the message begins. It is information, for those who ask for that.
var noise = map[string][]string{
	"apiserver": {
		"Skipping API ",                          // one line for each version that Kubernetes no longer has on
		"Resetting endpoints for master service", // at each start
		"The manifest file is empty",             // kube-proxy's and others' too: no static admission configuration
		// Until the metrics server is ready; `k3m status` says so if it does not become it.
		"error resolving kube-system/metrics-server: no endpoints available",
		"no RequestInfo found in the context", // the aggregator asks on its own behalf
	},
	"controller-manager": {"The manifest file is empty"},
	"scheduler":          {"The manifest file is empty"},
	// The kubelet starts before its node and the runtime's first answer are there.
	"kubelet": {
		"Skipping pod synchronization",
		"Error getting the current node from lister",
		"Unable to register mirror pod because node is not registered yet",
		"Image garbage collection failed once. Stats initialization may not have completed yet",
		"Failed to get node when trying to set owner ref to the node lease",
		"Failed to read data from checkpoint",
		"eviction manager: failed to check if we have separate container filesystem",
		"Eviction manager: failed to get summary stats",
		"Failed to ensure process in container with oom score", // the kubelet looks for itself by a pid file
	},
	"kube-proxy": {"Failed to list existing sets"}, // before it has made its table
}

// noisyError is a message that is noise with this error, and with no other.
type noisyError struct {
	message string // how it begins
	err     *regexp.Regexp
}

var (
	// noMetricsYet is an error of those who list all APIs before the metrics server is ready:
	// of no other API.
	noMetricsYet = regexp.MustCompile(`^unable to retrieve the complete list of server APIs: metrics\.k8s\.io/v1beta1: stale GroupVersion discovery: metrics\.k8s\.io/v1beta1$`)
	// namespaceToCome is an error of those who are faster than the one that makes the first namespaces.
	namespaceToCome = regexp.MustCompile(`namespaces "kube-system" not found$`)
)

// noisyErrors are those of healthy nodes, by origin.
var noisyErrors = map[string][]noisyError{
	"apiserver": {
		{"Unhandled Error", regexp.MustCompile(`^loading OpenAPI spec for "v1beta1\.metrics\.k8s\.io" failed with: ` +
			`(Error, could not get list of group versions for APIService|failed to download v1beta1\.metrics\.k8s\.io: failed to retrieve openAPI spec, http error: ResponseCode: 503\b)`)},
		{"Unhandled Error", regexp.MustCompile(`^Error updating APIService "v1beta1\.metrics\.k8s\.io" with err: ` +
			`failed to download v1beta1\.metrics\.k8s\.io: failed to retrieve openAPI spec, http error: ResponseCode: 503\b`)},
		{"Unhandled Error", regexp.MustCompile(`^v1beta1\.metrics\.k8s\.io failed with: ` +
			`(failing or missing response from \S+: bad status from \S+: 503$|Operation cannot be fulfilled on )`)},
		{"Unhandled Error", namespaceToCome},
	},
	"controller-manager": {
		{"Unable to get all supported resources from server", noMetricsYet},
		{"Initial discovery check failure, continuing", noMetricsYet},
		{"Error during resource discovery", noMetricsYet},
	},
	"kubernetes": {
		{"Failed to ensure lease exists, will retry", namespaceToCome},
		// The end of each `kubectl exec`, `attach` and `port-forward`.
		{"Error on socket receive", regexp.MustCompile(`: use of closed network connection$`)},
	},
}

func isNoise(origin, message string, err error) bool {
	for _, beginning := range noise[origin] {
		if strings.HasPrefix(message, beginning) {
			return true
		}
	}
	if err == nil {
		return false
	}
	for _, n := range noisyErrors[origin] {
		if strings.HasPrefix(message, n.message) && n.err.MatchString(err.Error()) {
			return true
		}
	}
	return false
}

// hangUp is what a component's gRPC server says of a call that was under way when k3m closed the
// connection, which it does whenever it stops a component.
var hangUp = regexp.MustCompile(`^\[core\] \[Server #\d+\] ?grpc: Server\.(processRPC|handleStream) failed to write status: .*transport is closing`)
