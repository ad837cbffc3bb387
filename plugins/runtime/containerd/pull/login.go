package pull

import (
	"context"
	"errors"
	"fmt"
	"sync"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/streaming"
	"github.com/containerd/typeurl/v2"
)

var errHungUp = errors.New("the pull has ended")

// conversation is how credentials are asked for: the stream that containerd's client and
// server have for it, within one process.
type conversation struct {
	mu        sync.Mutex // one question at a time
	questions chan typeurl.Any
	answers   chan typeurl.Any
	over      chan struct{}
	end       sync.Once
}

func newConversation() *conversation {
	return &conversation{questions: make(chan typeurl.Any), answers: make(chan typeurl.Any), over: make(chan struct{})}
}

// close ends the goroutine of whoever answers.
func (c *conversation) close() { c.end.Do(func() { close(c.over) }) }

// Create is called by whoever will answer.
func (c *conversation) Create(context.Context, string) (streaming.Stream, error) {
	return &answerer{conversation: c}, nil
}

// answerer is the answering end, for one goroutine.
type answerer struct {
	*conversation
	owes bool // an answer to the last question
}

func (a *answerer) Send(answer typeurl.Any) error {
	a.owes = false
	return a.hand(a.answers, answer)
}

// Recv is called again without an answer when there is none.
func (a *answerer) Recv() (typeurl.Any, error) {
	if a.owes {
		if err := a.Send(nil); err != nil {
			return nil, err
		}
	}
	question, err := a.take(a.questions)
	a.owes = err == nil
	return question, err
}

func (a *answerer) Close() error { a.close(); return nil }

func (c *conversation) hand(to chan<- typeurl.Any, message typeurl.Any) error {
	select {
	case to <- message:
		return nil
	case <-c.over:
		return errHungUp
	}
}

func (c *conversation) take(from <-chan typeurl.Any) (typeurl.Any, error) {
	select {
	case message := <-from:
		return message, nil
	case <-c.over:
		return nil, errHungUp
	}
}

// ask returns what is to be shown to a host.
func (c *conversation) ask(reference, host string) (user, secret string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	question, err := typeurl.MarshalAny(&transfertypes.AuthRequest{Host: host, Reference: reference})
	if err == nil {
		err = c.hand(c.questions, question)
	}
	if err != nil {
		return "", "", fmt.Errorf("ask for the credentials of %s: %w", host, err)
	}
	message, err := c.take(c.answers)
	if err != nil {
		return "", "", fmt.Errorf("ask for the credentials of %s: %w", host, err)
	}
	if message == nil {
		return "", "", fmt.Errorf("the credentials for %s can't be read: look at the pod's pull secret", host)
	}
	var answer transfertypes.AuthResponse
	if err := typeurl.UnmarshalTo(message, &answer); err != nil {
		return "", "", fmt.Errorf("read the credentials of %s: %w", host, err)
	}
	if answer.GetAuthType() == transfertypes.AuthType_HEADER {
		return "", "", errors.New("credentials that are a header are not understood")
	}
	return answer.GetUsername(), answer.GetSecret(), nil
}
