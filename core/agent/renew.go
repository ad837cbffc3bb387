package agent

import (
	"context"
	"crypto/x509"
	"time"
)

// renewRetry is how long the agent waits after a renewal, and after one that failed: months are
// left then.
const renewRetry = time.Hour

// renewAt is when a certificate has a quarter of its life left: nine months into a year.
func renewAt(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-cert.NotAfter.Sub(cert.NotBefore) / 4)
}

// renew joins again before the node's certificates end. The kubelet and kube-proxy look at the
// files again by themselves. A refusal is for the log, and for whoever reads it: the node
// goes on with what it has.
func (a *Agent) renew(ctx context.Context) error {
	for wait := time.Duration(0); ; wait = renewRetry {
		wait = max(wait, renewAt(a.identity().kubelet.Leaf).Sub(a.clock()))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		id, err := a.join(ctx)
		if err != nil {
			if ctx.Err() == nil {
				a.opts.Logger.Error("the node's certificates can't be renewed", "end", a.identity().kubelet.Leaf.NotAfter, "error", err)
			}
			continue
		}
		a.setIdentity(id)
		a.opts.Logger.Info("the node's certificates are renewed", "end", id.kubelet.Leaf.NotAfter)
	}
}
