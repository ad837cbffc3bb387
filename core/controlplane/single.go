package controlplane

import (
	"time"

	"k8s.io/apiserver/pkg/features"
	"k8s.io/kubernetes/pkg/controlplane/apiserver"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

// A cluster on a datastore of its own in a file has one API server. What API servers do to know of
// one another would be three writes each ten seconds, for nobody, and each write wakes every watch of
// the datastore: two thirds of what an idle node wrote.

// identityLeaseRenewal is how often the API server renews the Lease with its identity, which lasts an
// hour (upstream's apiserver.IdentityLeaseDurationSeconds): often enough not to lose it.
const identityLeaseRenewal = 10 * time.Minute

// peerProxyGate lets API servers of several versions serve each other's resources. Its lease is the
// one that a user's feature gate brings back.
const peerProxyGate = string(features.UnknownVersionInteroperabilityProxy)

// singleServerDefaults are flags of the API server that is alone: it writes the endpoints of the
// Service "kubernetes" without a lease that tells other servers whether it lives.
func singleServerDefaults() []argument {
	apiserver.IdentityLeaseRenewIntervalPeriod = identityLeaseRenewal
	return []argument{
		{name: "endpoint-reconciler-type", value: string(reconcilers.MasterCountReconcilerType)},
	}
}
