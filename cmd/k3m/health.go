package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/k3m-io/k3m/core/agent"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/health"
)

// The parts of a server on its health board. The agent sets those of the kubelet and
// kube-proxy.
const (
	partAPI       = "API"
	partDatastore = "datastore"
	partNode      = "node"
	// partConfiguration is on the board only while the files are not what runs, see notReloaded.
	partConfiguration = "configuration"
)

// probePatience bounds the questions of a probe: what does not answer in this time is not well.
const probePatience = 2 * time.Second

// expectParts puts the parts on the board in the order in which they come up.
func (s *server) expectParts() {
	s.health.Set(health.Condition{Part: partDatastore, State: health.Working, Message: "opens the database"})
	s.health.Set(health.Condition{Part: partAPI, State: health.Waiting, Message: "waits for the datastore"})
	s.health.Set(health.Condition{Part: agent.PartKubelet, State: health.Waiting, Message: "waits for the API and the container runtime"})
	s.health.Set(health.Condition{Part: agent.PartProxy, State: health.Waiting, Message: "waits for the node"})
	s.health.Set(health.Condition{Part: partNode, State: health.Waiting, Message: "waits for the kubelet"})
}

// watchHealth keeps the board until ctx ends: as the control plane comes up, and then what the
// cluster says of this node.
func (s *server) watchHealth(ctx context.Context) error {
	if !happened(ctx, s.controlPlane.Joinable()) {
		return nil
	}
	s.health.Set(health.Condition{Part: partDatastore, State: health.OK})
	s.health.Set(health.Condition{Part: partAPI, State: health.Working, Message: "starts"})
	if !happened(ctx, s.controlPlane.APIReady()) {
		return nil
	}
	s.health.Set(health.Condition{Part: partAPI, State: health.OK})
	client, err := kubernetes.NewForConfig(s.controlPlane.AdminConfig())
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, s.plan.cfg.NodeName).String()
	}))
	nodes := factory.Core().V1().Nodes().Informer()
	if err := nodes.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		cache.DefaultWatchErrorHandler(ctx, r, err)
		s.probe(ctx)
	}); err != nil {
		return fmt.Errorf("watch the node: %w", err)
	}
	seen := func(object any) {
		if node, ok := object.(*corev1.Node); ok {
			s.health.Set(nodeCondition(node, s.start))
			s.health.Set(health.Condition{Part: partAPI, State: health.OK}) // it told us
		}
	}
	if _, err := nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    seen,
		UpdateFunc: func(_, object any) { seen(object) },
		DeleteFunc: func(any) {
			s.health.Set(health.Condition{Part: partNode, State: health.Failed, Message: "somebody deleted the Node object",
				Fix: "restart k3m: the node registers again"})
		},
	}); err != nil {
		return fmt.Errorf("watch the node: %w", err)
	}
	factory.Start(ctx.Done())
	s.awaitProxy(ctx)
	<-ctx.Done()
	factory.Shutdown()
	return nil
}

// proxyInterval is how often kube-proxy is asked whether it is well until it is, once a start:
// it has no event for it.
const proxyInterval = 250 * time.Millisecond

// awaitProxy puts kube-proxy on the board as OK once it says that it is.
func (s *server) awaitProxy(ctx context.Context) {
	url, askable := s.healthURLs()[agent.PartProxy]
	for {
		changed := s.health.Changed()
		switch s.stateOf(agent.PartProxy) {
		case health.Waiting:
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		case health.Working:
			if !askable {
				s.health.Set(health.Condition{Part: agent.PartProxy, State: health.OK})
				return
			}
			if s.probePart(ctx, agent.PartProxy, url); s.stateOf(agent.PartProxy) != health.Working {
				return
			}
			select {
			case <-time.After(proxyInterval):
			case <-ctx.Done():
				return
			}
		default:
			return
		}
	}
}

func (s *server) stateOf(part string) health.State {
	for _, c := range s.health.Conditions() {
		if c.Part == part {
			return c.State
		}
	}
	return ""
}

// pressures are the node's conditions that are not well when they are true.
var pressures = map[corev1.NodeConditionType]string{
	corev1.NodeDiskPressure:       "free disk space: the kubelet evicts pods until there is some",
	corev1.NodeMemoryPressure:     "give the node more memory, or its pods less",
	corev1.NodePIDPressure:        "find the pod that starts so many processes",
	corev1.NodeNetworkUnavailable: "look at the cni component's log",
}

// nodeCondition sums up what the cluster says of a node, since a server was started.
func nodeCondition(node *corev1.Node, start time.Time) health.Condition {
	c := health.Condition{Part: partNode, State: health.Working, Message: "the kubelet has not reported yet"}
	for _, condition := range node.Status.Conditions {
		fix, isPressure := pressures[condition.Type]
		switch {
		case condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionUnknown:
			return health.Condition{Part: partNode, State: health.Failed, Message: "NotReady: " + oneSentence(condition.Message),
				Fix: "restart k3m: its kubelet does not report"}
		case condition.Type == corev1.NodeReady && condition.LastHeartbeatTime.Time.Before(start.Truncate(time.Second)):
			// The last word of the run before.
		case condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue:
			c = health.Condition{Part: partNode, State: health.Failed, Message: "NotReady: " + oneSentence(condition.Message),
				Fix: "look at `k3m component list`: the runtime and the cni make a node ready"}
		case condition.Type == corev1.NodeReady && c.State == health.Working:
			c = health.Condition{Part: partNode, State: health.OK, Message: "Ready"}
		case isPressure && condition.Status == corev1.ConditionTrue && c.State != health.Failed:
			c = health.Condition{Part: partNode, State: health.Degraded,
				Message: string(condition.Type) + ": " + oneSentence(condition.Message), Fix: fix}
		}
	}
	if c.State == health.OK && node.Spec.Unschedulable {
		c.Message = "Ready, and takes no new pods (cordoned)"
	}
	return c
}

func oneSentence(text string) string {
	return strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ".")
}

// probe asks the parts that answer such questions how they are, and puts it on the board. It
// is for someone who looks: while one watches, parts that fail are asked again each
// againInterval.
func (s *server) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	var asked errgroup.Group
	select {
	case <-s.controlPlane.APIReady():
		asked.Go(func() error { s.probeAPI(ctx); return nil })
	default:
	}
	for part, url := range s.healthURLs() {
		asked.Go(func() error { s.probePart(ctx, part, url); return nil })
	}
	_ = asked.Wait() // they return none
}

// probeAPI asks the API server which of its checks are good.
func (s *server) probeAPI(ctx context.Context) {
	client, err := kubernetes.NewForConfig(s.controlPlane.AdminConfig())
	if err != nil {
		return
	}
	text, err := client.RESTClient().Get().AbsPath("/readyz").Param("verbose", "true").DoRaw(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) { // the one who asked has gone
		return
	}
	var failed []string
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			failed = append(failed, strings.Fields(name)[0])
		}
	}
	store := health.Condition{Part: partDatastore, State: health.OK}
	api := health.Condition{Part: partAPI, State: health.OK}
	if err != nil {
		api = health.Condition{Part: partAPI, State: health.Failed, Message: "does not answer: " + err.Error(),
			Fix: "look at the log for what apiserver and datastore say"}
		if len(failed) > 0 {
			api.State, api.Message = health.Degraded, "these of its checks fail: "+strings.Join(failed, ", ")
		}
		if strings.Contains(strings.Join(failed, " "), "etcd") {
			store = health.Condition{Part: partDatastore, State: health.Failed, Message: "does not answer the API server",
				Fix: "look at the disk of " + s.plan.cfg.DataDir + ": is it full, or broken?"}
		}
	}
	s.health.Set(api)
	s.health.Set(store)
}

// healthURLs are where the kubelet and kube-proxy say whether they are well, unless their
// arguments may have moved them.
func (s *server) healthURLs() map[string]string {
	urls := map[string]string{}
	for part, endpoint := range map[string]struct {
		url  string
		args []config.Value
	}{
		agent.PartKubelet: {"http://127.0.0.1:10248/healthz", s.plan.cfg.KubeletArgs},
		agent.PartProxy:   {"http://127.0.0.1:10256/healthz", s.plan.cfg.KubeProxyArgs},
	} {
		moved := false
		for _, arg := range endpoint.args {
			moved = moved || strings.HasPrefix(arg.Text, "healthz") || strings.HasPrefix(arg.Text, "config")
		}
		if !moved {
			urls[part] = endpoint.url
		}
	}
	return urls
}

// probePart asks a part that works, or did before. One that has not come up yet may not listen.
func (s *server) probePart(ctx context.Context, part, url string) {
	before := s.stateOf(part)
	if before == health.Waiting || before == health.Working && part == agent.PartKubelet { // which is OK when the node is Ready
		return
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return
	}
	answer, err := http.DefaultClient.Do(request)
	if err == nil {
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("it answers %s", answer.Status)
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled): // the one who asked has gone
	case err == nil:
		s.health.Set(health.Condition{Part: part, State: health.OK})
	case before != health.Working:
		s.health.Set(health.Condition{Part: part, State: health.Failed, Message: "its health check fails: " + err.Error(),
			Fix: "look at the log for what " + part + " says"})
	}
}
