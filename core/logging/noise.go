package logging

import "strings"

// noise is what Kubernetes' parts say at the level of a warning or an error, on every healthy
// node, by origin and how the message begins. It is information, for those who ask for that.
var noise = map[string][]string{
	"apiserver": {
		"Skipping API ",                          // one line for each version that Kubernetes no longer has on
		"Resetting endpoints for master service", // at each start
		"The manifest file is empty",             // kube-proxy's and others' too: no static admission configuration
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

func isNoise(origin, message string) bool {
	for _, beginning := range noise[origin] {
		if strings.HasPrefix(message, beginning) {
			return true
		}
	}
	return false
}
