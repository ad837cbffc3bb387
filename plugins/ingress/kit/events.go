package kit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"
)

const (
	// repetition keeps the Event of what stays wrong there: the API forgets Events after
	// an hour.
	repetition = 30 * time.Minute
	// retryAfter is how long the Recorder waits when the API did not take an Event.
	retryAfter = 10 * time.Second
	// eventsPerSecond and eventsAtOnce bound what a cluster full of mistakes costs the API.
	eventsPerSecond, eventsAtOnce = 10, 100
	// maxNote is the API's bound, in bytes.
	maxNote = 1024
)

// The reasons of a Finding that the kit makes.
const (
	ReasonDuplicatePath    = "DuplicatePath"
	ReasonSecretMissing    = "TLSSecretMissing"
	ReasonSecretInvalid    = "TLSSecretInvalid"
	ReasonCertificateDates = "TLSCertificateExpired"
	ReasonBackendMissing   = "BackendMissing"
	reportingAction        = "Sync"
)

// Finding is something wrong with an object, for its owner to mend.
type Finding struct {
	// Object is what it is about: an Ingress mostly.
	Object corev1.ObjectReference
	// Reason is one word in CamelCase, Message a sentence.
	Reason, Message string
}

// Recorder writes an Event for each Finding once, and again while it stays: one that says
// the same again, after a restart too, is the same object.
type Recorder struct {
	clients *Clients
	log     hclog.Logger
	limit   flowcontrol.RateLimiter
	wake    chan struct{}

	mu       sync.Mutex
	findings map[string]map[string]*told // by source, by name of the Event
}

type told struct {
	Finding
	due time.Time
}

// NewRecorder makes a Recorder; Run writes.
func NewRecorder(c *Clients, log hclog.Logger) *Recorder {
	return &Recorder{clients: c, log: log, wake: make(chan struct{}, 1), findings: map[string]map[string]*told{},
		limit: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventsAtOnce)}
}

// Sync says all that a source ("audit", "reload") has found. What it had found before and
// does not any more is forgotten, so that it is told anew when it comes back. It returns at
// once.
func (r *Recorder) Sync(source string, findings []Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, now := r.findings[source], map[string]*told{}
	for _, f := range findings {
		name := eventName(f)
		if old := before[name]; old != nil {
			now[name] = old
			continue
		}
		now[name] = &told{Finding: f}
	}
	r.findings[source] = now
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	// The only timer is for the repetition of what stays wrong.
	timer := time.NewTimer(repetition)
	defer timer.Stop()
	for {
		next := r.write(ctx)
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// write writes what is due and says when the next is.
func (r *Recorder) write(ctx context.Context) time.Time {
	now, next := time.Now(), time.Now().Add(repetition)
	var due []*told
	r.mu.Lock()
	for _, findings := range r.findings {
		for _, t := range findings {
			switch {
			case !t.due.After(now):
				due = append(due, t)
			case t.due.Before(next):
				next = t.due
			}
		}
	}
	r.mu.Unlock()
	for _, t := range due {
		if r.limit.Wait(ctx) != nil {
			return next
		}
		again := repetition
		if err := r.event(ctx, t.Finding, time.Now()); err != nil {
			if ctx.Err() != nil {
				return next
			}
			r.log.Debug("write an Event", "object", t.Object.Namespace+"/"+t.Object.Name, "err", err)
			again = retryAfter
		}
		r.mu.Lock()
		t.due = time.Now().Add(again)
		if t.due.Before(next) {
			next = t.due
		}
		r.mu.Unlock()
	}
	return next
}

func (r *Recorder) event(ctx context.Context, f Finding, now time.Time) error {
	note := strings.ToValidUTF8(f.Message, "�")
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote-4], "") + " …"
	}
	namespace := f.Object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where Events about cluster-wide objects are
	}
	event := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: eventName(f)},
		EventTime:           metav1.NewMicroTime(now),
		ReportingController: r.clients.Component,
		ReportingInstance:   r.clients.Node,
		Action:              reportingAction,
		Reason:              f.Reason,
		Regarding:           f.Object,
		Note:                note,
		Type:                corev1.EventTypeWarning,
	}
	events := r.clients.Events
	err := events.Post().Namespace(namespace).Resource("events").Body(event).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		again := fmt.Appendf(nil, `{"series":{"count":2,"lastObservedTime":%q}}`,
			now.UTC().Format("2006-01-02T15:04:05.000000Z07:00"))
		err = events.Patch(types.MergePatchType).Namespace(namespace).Resource("events").Name(event.Name).
			Body(again).Do(ctx).Error()
	}
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		r.log.Debug("drop an Event", "object", namespace+"/"+f.Object.Name, "err", err) // its namespace is going
		return nil
	}
	if err == nil {
		r.log.Warn(note, "object", namespace+"/"+f.Object.Name, "reason", f.Reason)
	}
	return err
}

// eventName is the same for the same finding about the same object.
func eventName(f Finding) string {
	sum := sha256.Sum256([]byte(string(f.Object.UID) + "\x00" + f.Reason + "\x00" + f.Message))
	name := f.Object.Name
	if len(name) > 200 {
		name = strings.TrimRight(name[:200], ".-")
	}
	return fmt.Sprintf("%s.%x", name, sum[:8])
}
