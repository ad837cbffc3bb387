package e2e

import (
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/test/harness"
)

const jobs = `
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  completions: 3
  parallelism: 3
  template:
    spec:
      restartPolicy: Never
      containers: [{name: work, image: BUSYBOX, command: [sh, -c, "echo done by $HOSTNAME"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: work, image: BUSYBOX, command: [sh, -c, "exit 3"]}]
`

func TestJob(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(jobs)
	for name, want := range map[string]batchv1.JobConditionType{"once": batchv1.JobComplete, "broken": batchv1.JobFailed} {
		err := harness.Wait(within(t, 90*time.Second), s.client.BatchV1().Jobs(s.ns), name, func(j *batchv1.Job) (bool, string) {
			for _, c := range j.Status.Conditions {
				if c.Type == want {
					return true, ""
				}
			}
			return false, j.Status.String()
		})
		if err != nil {
			t.Errorf("wait for job %s to be %s: %v", name, want, err)
		}
	}
}

func TestCronJob(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: minutely}
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: work, image: BUSYBOX, command: ["true"]}]
`)
	// The next full minute, and some time for the pod.
	_, err := harness.WaitAny(within(t, 120*time.Second), s.client.BatchV1().Jobs(s.ns), "", func(j *batchv1.Job) (bool, string) {
		return j.Status.Succeeded == 1 && metav1.GetControllerOf(j).Name == "minutely", j.Status.String()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDaemonSet(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: echo, image: ECHO}]
`)
	err := harness.Wait(within(t, 90*time.Second), s.client.AppsV1().DaemonSets(s.ns), "echo", func(d *appsv1.DaemonSet) (bool, string) {
		return d.Status.DesiredNumberScheduled == 1 && d.Status.NumberAvailable == 1, d.Status.String()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestStatefulSet(t *testing.T) {
	t.Parallel()
	s := play(t)
	s.apply(`
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: ECHO
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
`)
	ready := s.pods("app=db", 2)
	first := map[string]bool{}
	for _, p := range ready {
		first[p.Name] = true
		if body := s.get(s.node.Host.HTTP(), "http://"+p.Status.PodIP+":8080"); body != p.Name {
			t.Errorf("pod %s calls itself %q", p.Name, body)
		}
	}
	if !first["db-0"] || !first["db-1"] {
		t.Fatalf("pods are %v", first)
	}
	// A pod that is deleted comes back under its name.
	old := s.pod("db-1").UID
	s.kubectl("delete", "pod", "db-1", "--wait=false")
	err := harness.WaitAll(within(t, 60*time.Second), s.client.CoreV1().Pods(s.ns), "app=db", func(pods []*corev1.Pod) (bool, string) {
		for _, p := range pods {
			if p.Name == "db-1" && p.UID != old && podReady(p) {
				return true, ""
			}
		}
		return false, fmt.Sprint(len(pods), " pods")
	})
	if err != nil {
		t.Errorf("wait for db-1 to come back: %v", err)
	}
}
