package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/health"
	"github.com/k3m-io/k3m/sdk"
)

// partRights is what the rights of components that went are called on the health board.
const partRights = "component rights"

// rightsPatience bounds the change of rights that a swap ends with, which goes on when the one who
// asked for it has gone. It takes a tenth of a second.
const rightsPatience = 10 * time.Second

// authorize makes the components' API rights those of infos. Rights that could not be taken away
// are no error: they are on the health board, and the next reload, or start, tries again.
func (s *server) authorize(ctx context.Context, client kubernetes.Interface, infos []sdk.Info) error {
	err := components.Authorize(ctx, client, infos)
	var left *components.LeftoverError
	if err != nil && !errors.As(err, &left) {
		return err
	}
	s.owe(err)
	return nil
}

// reauthorize is authorize after a swap: no error of it undoes that, and none is left unsaid.
func (s *server) reauthorize(ctx context.Context, client kubernetes.Interface, infos []sdk.Info) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rightsPatience)
	defer cancel()
	if err := s.authorize(ctx, client, infos); err != nil {
		s.owe(err)
	}
}

// owe takes note of why rights could not be taken away; nil when they were.
func (s *server) owe(err error) {
	s.live.setOwed(err != nil)
	if err == nil {
		s.health.Remove(partRights)
		return
	}
	s.log.Warn("components that stopped may have API rights, or addresses that they gave; the next reload tries again", "error", err)
	s.health.Set(health.Condition{
		Part: partRights, State: health.Degraded, Message: strings.ReplaceAll(err.Error(), "\n", "; "),
		Fix: "mend what forbids it, such as an admission webhook that does not answer, then send the server SIGHUP: it tries again",
	})
}
