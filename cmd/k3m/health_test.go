package main

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/core/health"
)

func TestNodeCondition(t *testing.T) {
	start := time.Now()
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, heartbeat time.Time) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Message: "the kubelet says so.", LastHeartbeatTime: metav1.NewTime(heartbeat)}
	}
	ready := condition(corev1.NodeReady, corev1.ConditionTrue, start.Add(time.Second))
	for name, tc := range map[string]struct {
		conditions []corev1.NodeCondition
		cordoned   bool
		state      health.State
		message    string
	}{
		"nothing yet":          {state: health.Working, message: "the kubelet has not reported yet"},
		"ready before":         {conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionTrue, start.Add(-time.Minute))}, state: health.Working, message: "the kubelet has not reported yet"},
		"ready":                {conditions: []corev1.NodeCondition{condition(corev1.NodeDiskPressure, corev1.ConditionFalse, start), ready}, state: health.OK, message: "Ready"},
		"cordoned":             {conditions: []corev1.NodeCondition{ready}, cordoned: true, state: health.OK, message: "Ready, and takes no new pods (cordoned)"},
		"not ready":            {conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionFalse, start.Add(time.Second))}, state: health.Failed, message: "NotReady: the kubelet says so"},
		"silent":               {conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionUnknown, start.Add(time.Second))}, state: health.Failed, message: "NotReady: the kubelet says so"},
		"a pressure":           {conditions: []corev1.NodeCondition{condition(corev1.NodeDiskPressure, corev1.ConditionTrue, start), ready}, state: health.Degraded, message: "DiskPressure: the kubelet says so"},
		"a pressure after":     {conditions: []corev1.NodeCondition{ready, condition(corev1.NodeDiskPressure, corev1.ConditionTrue, start)}, state: health.Degraded, message: "DiskPressure: the kubelet says so"},
		"a pressure, NotReady": {conditions: []corev1.NodeCondition{condition(corev1.NodeReady, corev1.ConditionFalse, start.Add(time.Second)), condition(corev1.NodeDiskPressure, corev1.ConditionTrue, start)}, state: health.Failed, message: "NotReady: the kubelet says so"},
	} {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{Spec: corev1.NodeSpec{Unschedulable: tc.cordoned}, Status: corev1.NodeStatus{Conditions: tc.conditions}}
			c := nodeCondition(node, start)
			if c.State != tc.state || c.Message != tc.message {
				t.Errorf("condition is %s %q, want %s %q", c.State, c.Message, tc.state, tc.message)
			}
			if (c.State == health.Failed || c.State == health.Degraded) == (c.Fix == "") {
				t.Errorf("what to do about %s is %q", c.State, c.Fix)
			}
		})
	}
}
