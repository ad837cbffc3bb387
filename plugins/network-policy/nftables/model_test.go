package nftables

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTerminatingPods keeps the address of a pod as long as anything in it runs.
func TestTerminatingPods(t *testing.T) {
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	ended := corev1.ContainerStatus{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	for name, c := range map[string]struct {
		status corev1.PodStatus
		gone   bool
	}{
		"its container runs": {corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{running}}, false},
		"all has ended": {corev1.PodStatus{
			ContainerStatuses: []corev1.ContainerStatus{ended}, InitContainerStatuses: []corev1.ContainerStatus{ended},
		}, true},
		"a sidecar runs": {corev1.PodStatus{
			ContainerStatuses: []corev1.ContainerStatus{ended}, InitContainerStatuses: []corev1.ContainerStatus{ended, running},
		}, false},
		"a debugger runs": {corev1.PodStatus{
			ContainerStatuses: []corev1.ContainerStatus{ended}, EphemeralContainerStatuses: []corev1.ContainerStatus{running},
		}, false},
		"it has no status yet": {corev1.PodStatus{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			o := podObject("a", "p", "", nodeName)
			o.DeletionTimestamp, o.Status = &metav1.Time{}, c.status
			slimPod(o)
			if gone := podOf(o, nodeName) == nil; gone != c.gone {
				t.Errorf("it is gone: %t, want %t", gone, c.gone)
			}
		})
	}
}
