package nodeip

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The reasons of Events.
const (
	reasonTaken    = "PortTaken"       // somebody else has a port
	reasonNowhere  = "NoNode"          // no node comes into question
	reasonSilent   = "NodeSilent"      // a node does not say who has a port
	reasonAssigned = "AddressAssigned" // a Service that had no address has one
)

const (
	// patience is how long a Service may be without an address, for a reason that mostly
	// passes, before an Event says so: its pods are about to start, a node about to report.
	patience = 10 * time.Second
	// repetition keeps the Event of a Service that stays pending there: the API forgets
	// Events after an hour.
	repetition = 30 * time.Minute
	// maxMessage is the API's bound, in bytes.
	maxMessage = 1024
	// maxNamed is how many nodes a message names.
	maxNamed = 5
)

// story is what was told of a Service.
type story struct {
	text  string    // what is wrong
	since time.Time // since when
	told  time.Time // zero: not yet
	// assigned are the addresses that an Event spoke of.
	assigned string
}

// tell makes Events of what is new, and says when to look again if nothing changes; zero
// is never.
func (c *controller) tell(ctx context.Context, verdicts []verdict, now time.Time) (time.Duration, error) {
	var next time.Duration
	var errs error
	seen := map[types.UID]bool{}
	for _, v := range verdicts {
		if !v.service.mine {
			continue
		}
		seen[v.service.uid] = true
		s := c.stories[v.service.uid]
		if s == nil {
			s = &story{}
			c.stories[v.service.uid] = s
		}
		if given := addresses(v.ingress); given != s.assigned {
			s.assigned = given
			if given != "" && len(v.service.current) == 0 {
				errs = errors.Join(errs, c.event(ctx, v.service, corev1.EventTypeNormal, reasonAssigned, "got "+given, now))
			}
		}
		reason, text, wait := complaint(v)
		if text != s.text {
			s.text, s.since, s.told = text, now, time.Time{}
		}
		if text == "" {
			continue
		}
		due := s.since.Add(wait)
		if !s.told.IsZero() {
			due = s.told.Add(repetition)
		}
		if !due.After(now) {
			err := c.event(ctx, v.service, corev1.EventTypeWarning, reason, text, now)
			errs = errors.Join(errs, err)
			if err == nil {
				s.told, due = now, now.Add(repetition)
			}
		}
		if left := due.Sub(now); next == 0 || left < next {
			next = left
		}
	}
	for uid := range c.stories {
		if !seen[uid] {
			delete(c.stories, uid)
		}
	}
	return next, errs
}

// complaint is what an Event about a verdict says, and how long it may be held back;
// nothing when there is nothing to complain about.
func complaint(v verdict) (reason, text string, wait time.Duration) {
	if v.nowhere != "" {
		return reasonNowhere, "no address: " + v.nowhere, patience
	}
	taken := slices.DeleteFunc(slices.Clone(v.blocked), func(b blocker) bool { return b.holder == "" })
	switch {
	case len(taken) > 0:
		return reasonTaken, describe(taken), 0
	case len(v.blocked) > 0:
		var nodes []string
		for _, b := range v.blocked {
			nodes = append(nodes, b.node)
		}
		return reasonSilent, fmt.Sprintf("waiting for %s to say who holds port %s there; is k3m on it up and up to date?",
			list(nodes), v.blocked[0].port), patience
	}
	return "", "", 0
}

// describe says who holds what: one clause for each port and holder.
func describe(taken []blocker) string {
	var clauses []string
	for i, b := range taken {
		alike := func(other blocker) bool { return other.port == b.port && other.holder == b.holder }
		if slices.ContainsFunc(taken[:i], alike) {
			continue
		}
		var where []string
		for _, other := range taken[i:] {
			if alike(other) {
				where = append(where, fmt.Sprintf("%s (%s)", other.node, other.addr))
			}
		}
		clauses = append(clauses, fmt.Sprintf("port %s is held by %s on %s", b.port, b.holder, list(where)))
	}
	hint := "the Service gets the address when the port is free"
	if slices.ContainsFunc(taken, func(b blocker) bool { return b.reserved }) {
		hint = "choose another port for the Service"
	}
	return strings.Join(clauses, "; ") + "; " + hint
}

// list names some words, each once, and counts the others.
func list(words []string) string {
	var named []string
	for _, w := range words {
		if !slices.Contains(named, w) {
			named = append(named, w)
		}
	}
	if more := len(named) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(named[:maxNamed], ", "), more)
	}
	return strings.Join(named, ", ")
}

func addresses(ingresses []ingress) string {
	var all []string
	for _, i := range ingresses {
		all = append(all, i.addr.String())
	}
	return strings.Join(all, ", ")
}

// event writes an Event about a Service. One that says the same again, after a restart
// too, is the same object.
func (c *controller) event(ctx context.Context, svc *service, kind, reason, message string, now time.Time) error {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-4], "") + " …"
	}
	sum := sha256.Sum256([]byte(string(svc.uid) + reason + message))
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.key.Namespace, Name: fmt.Sprintf("%s.%x", svc.key.Name, sum[:8])},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Service",
			Namespace: svc.key.Namespace, Name: svc.key.Name, UID: svc.uid},
		Type: kind, Reason: reason, Message: message, Count: 1,
		FirstTimestamp: metav1.NewTime(now), LastTimestamp: metav1.NewTime(now),
		Source: corev1.EventSource{Component: id}, ReportingController: id, ReportingInstance: c.self,
	}
	events := func(verb string) string { return fmt.Sprintf("%s an Event about Service %s", verb, svc.key) }
	err := c.clients.core.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(ctx).Error()
	if apierrors.IsAlreadyExists(err) {
		again := fmt.Appendf(nil, `{"lastTimestamp":%q}`, now.UTC().Format(time.RFC3339))
		err = c.clients.core.Patch(types.MergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).
			Body(again).Do(ctx).Error()
	}
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsNotFound(err):
		c.log.Debug(events("drop"), "err", err) // its namespace is going
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", events("write"), err)
	}
	if kind == corev1.EventTypeWarning {
		c.log.Warn(message, "service", svc.key.String())
	}
	return nil
}
