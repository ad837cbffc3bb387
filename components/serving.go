package components

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/nodestatus"
)

// serve takes a component's word on where it serves, in the place of what it said before. What
// its Info does not name, or is no address of this node's, is left out: another node's address
// would draw that node's traffic here.
func (c *component) serve(endpoints []sdk.Endpoint) {
	facts := c.sup.facts()
	own := slices.Concat(facts.PodGateways, facts.NodeIPs)
	var served []nodestatus.Endpoint
	for _, e := range endpoints {
		if err := c.mayServe(e, own); err != nil {
			c.logger.Warn("reports an endpoint that it may not have; ignored", "service", e.Service, "error", err)
			continue
		}
		served = append(served, endpointStatus(e))
	}
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	c.served = served
	if c.status.State.serving() {
		c.set(c.status.State, c.status.Reason, func(*ComponentStatus) {})
	}
}

// mayServe says why a component may not have an endpoint, or nil.
func (c *component) mayServe(e sdk.Endpoint, own []netip.Addr) error {
	if !slices.Contains(c.info.Services, e.Service) {
		return fmt.Errorf("the services of its info are %q", c.info.Services)
	}
	for _, a := range e.Addresses {
		if !slices.Contains(own, a) {
			return fmt.Errorf("%s is no address of this node; its pod gateways and addresses are %v", a, own)
		}
	}
	return nil
}

// serveAs shows where the component serves as long as the state says that it does, and forgets
// it when its process has ended or is about to. The lock is held.
func (c *component) serveAs(state State) {
	switch {
	case state.serving():
		c.status.Endpoints = c.served
	case state == Starting: // it may have said where it will serve
		c.status.Endpoints = nil
	default:
		c.status.Endpoints, c.served = nil, nil
	}
}

func endpointStatus(e sdk.Endpoint) nodestatus.Endpoint {
	out := nodestatus.Endpoint{Service: e.Service}
	for _, a := range e.Addresses {
		if text := a.String(); !slices.Contains(out.Addresses, text) { // the API refuses one that is there twice
			out.Addresses = append(out.Addresses, text)
		}
	}
	for _, p := range e.Ports {
		out.Ports = append(out.Ports, nodestatus.Port{
			Name: p.Name, Protocol: string(p.Protocol), Port: p.Port, AppProtocol: p.AppProtocol})
	}
	return out
}
