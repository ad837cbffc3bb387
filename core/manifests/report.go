package manifests

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/k3m-io/k3m/core/health"
)

// healthPart is what the files are called on the health board, where they are when there are any.
const healthPart = "manifests"

// finish writes what came of a file, and tells of it when that is news.
func (k *Keeper) finish(ctx context.Context, w *work) {
	if ctx.Err() != nil || w.busy && k.records[w.name] == nil {
		return
	}
	next := *w.entry
	next.Status.State, next.Status.Message = stateApplied, ""
	next.Status.Applied = fmt.Sprintf("%d/%d", len(w.applied), len(w.objects))
	if len(w.problems) > 0 {
		next.Status.State, next.Status.Message = stateFailed, message(w.problems)
	}
	if err := k.write(ctx, &next); err != nil {
		w.fail(fmt.Errorf("%s: record what came of it: %w", w.name, err))
		next.Status.State, next.Status.Message = stateFailed, message(w.problems)
	} else {
		k.records[w.name] = &next
	}
	news := w.sum + next.Status.State + next.Status.Message
	if k.told[w.name] == news {
		return
	}
	k.told[w.name] = news
	if next.Status.State == stateFailed {
		k.opts.Logger.Warn("a manifest can't be applied; trying again", "file", w.name, "error", next.Status.Message)
		k.event(ctx, w.name, corev1.EventTypeWarning, stateFailed, next.Status.Message)
		return
	}
	k.opts.Logger.Info("manifest applied", "file", w.name, "objects", len(w.applied))
	k.event(ctx, w.name, corev1.EventTypeNormal, stateApplied, fmt.Sprintf("%d objects", len(w.applied)))
}

// maxMessage bounds what an Event and a status hold.
const maxMessage = 900

func message(problems []error) string {
	text := strings.ReplaceAll(errors.Join(problems...).Error(), "\n", "; ")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// event tells of a file by its Manifest. Where that can't be read, the log has to do.
func (k *Keeper) event(ctx context.Context, name, kindOfEvent, reason, text string) {
	o, err := k.dynamic.Resource(resource).Get(ctx, nameOf(name), metav1.GetOptions{})
	if err != nil {
		return
	}
	k.recorder.Event(&corev1.ObjectReference{APIVersion: apiVersion, Kind: kind, Name: o.GetName(), UID: o.GetUID()}, kindOfEvent, reason, text)
}

// tell puts the files on the health board.
func (k *Keeper) tell(all []*work, err error) {
	var problems []error
	if err != nil {
		problems = append(problems, err)
	}
	count := 0
	for _, w := range all {
		count += len(w.applied)
		problems = append(problems, w.problems...)
	}
	switch {
	case len(problems) > 0:
		k.opts.Health.Set(health.Condition{
			Part: healthPart, State: health.Degraded, Message: message(problems),
			Fix: "mend the file in " + k.opts.Dir + ": it is read again when it changes; or look at `k3m kubectl get manifests`",
		})
	case len(all) == 0:
		k.opts.Health.Remove(healthPart)
	default:
		k.opts.Health.Set(health.Condition{Part: healthPart, State: health.OK, Message: fmt.Sprintf("objects: %d, from files: %d", count, len(all))})
	}
}
