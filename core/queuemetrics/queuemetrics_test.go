package queuemetrics_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // the provider that would be set without this package

	_ "github.com/k3m-io/k3m/core/queuemetrics"
)

// value is that of a metric of the queue as /metrics would show it, or -1.
func value(t *testing.T, metric, queue string) float64 {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() != queue {
				continue
			}
			switch {
			case m.GetGauge() != nil:
				return m.GetGauge().GetValue()
			case m.GetCounter() != nil:
				return m.GetCounter().GetValue()
			default:
				return float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return -1
}

func newQueue(name string) workqueue.TypedInterface[string] {
	return workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[string]{Name: name})
}

func TestMetricsOfAQueue(t *testing.T) {
	q := newQueue("a-queue")
	defer q.ShutDown()
	expect := func(when string, want map[string]float64) {
		t.Helper()
		for metric, v := range want {
			if got := value(t, "workqueue_"+metric, "a-queue"); got != v {
				t.Errorf("%s: workqueue_%s is %v, want %v", when, metric, got, v)
			}
		}
	}
	q.Add("one")
	q.Add("two")
	expect("two added", map[string]float64{"depth": 2, "adds_total": 2, "unfinished_work_seconds": 0, "longest_running_processor_seconds": 0})
	one, _ := q.Get()
	time.Sleep(20 * time.Millisecond)
	two, _ := q.Get()
	expect("two in work", map[string]float64{"depth": 0, "queue_duration_seconds": 2, "work_duration_seconds": 0})
	longest, sum := value(t, "workqueue_longest_running_processor_seconds", "a-queue"), value(t, "workqueue_unfinished_work_seconds", "a-queue")
	if longest < 0.02 || sum <= longest {
		t.Errorf("the longest of two is in work for %v s, both together for %v s", longest, sum)
	}
	q.Done(one)
	if left := value(t, "workqueue_unfinished_work_seconds", "a-queue"); left <= 0 || left > sum-0.019 {
		t.Errorf("when the older one is done, %v s of %v s are left", left, sum)
	}
	q.Done(two)
	expect("both done", map[string]float64{"work_duration_seconds": 2, "unfinished_work_seconds": 0, "longest_running_processor_seconds": 0})
}

// Queues of upstream wake up each 500 ms: here nothing of them is left that could.
func TestQueuesHaveNoTimers(t *testing.T) {
	queues := make([]workqueue.TypedInterface[string], 50)
	for i := range queues {
		queues[i] = newQueue(fmt.Sprintf("quiet-%d", i))
	}
	deadline := time.Now().Add(20 * time.Second)
	for timers() > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d queues still have timers: is another metrics provider set first?", timers())
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, q := range queues {
		q.Add("works")
		item, _ := q.Get()
		q.Done(item)
		q.ShutDown() // would wait for a timer that never says that it has ended
	}
}

func timers() int {
	stacks := make([]byte, 8<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), ").updateUnfinishedWorkLoop(")
}
