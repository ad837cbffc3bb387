package client

import (
	"encoding/json"
	"net/netip"

	"github.com/k3m-io/k3m/sdk"
)

// Report is what a running component tells its host: a Ready, a Degraded, a RuntimeReady,
// a NetworkReady, a Serving or an Owning.
type Report interface{ report() }

// Ready says that the component serves, or has recovered.
type Ready struct{}

// Degraded says why the component can't do its work at present.
type Degraded struct{ Reason string }

// RuntimeReady is a runtime's CRI endpoint, "unix:///path". Whether the component is a
// runtime is for the caller to check.
type RuntimeReady struct{ Endpoint string }

// NetworkReady has this node's addresses on the pod network, at least one. Whether the
// component is a cni is for the caller to check.
type NetworkReady struct{ Gateways []netip.Addr }

// Serving says where the component serves its Services from now on. Whether its Info
// names them is for the caller to check, and whether the addresses are the node's.
type Serving struct{ Endpoints []sdk.Endpoint }

// Owning says what the objects are that the component's Info declares. Whether it may own
// them is for the caller to check, with sdk.Info.CheckOwned.
type Owning struct{ Objects []json.RawMessage }

func (Owning) report()       {}
func (Serving) report()      {}
func (Ready) report()        {}
func (Degraded) report()     {}
func (RuntimeReady) report() {}
func (NetworkReady) report() {}
