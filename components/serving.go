package components

import (
	"encoding/json"
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
	c.set(c.status.State, c.status.Reason, func(*ComponentStatus) {})
}

// Served are the endpoints of all processes that live, from when they say them until their end:
// of components that are not ready yet, too, and of such that are about to stop. A change of them is
// an event of Watch. What it returns is shared: nobody changes it.
func (s *Supervisor) Served() []nodestatus.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []nodestatus.Endpoint
	for _, c := range slices.Concat(s.components, s.leaving) {
		out = append(out, c.served...)
	}
	return out
}

// own takes a component's word on what the objects are that it declares.
func (c *component) own(objects []json.RawMessage) {
	if err := c.info.CheckOwned(objects); err != nil {
		c.logger.Warn("reports objects that it may not own; ignored", "error", err)
		return
	}
	c.sup.mu.Lock()
	defer c.sup.mu.Unlock()
	c.owned = slices.Clone(objects)
	if c.owned == nil {
		c.owned = []json.RawMessage{}
	}
	c.set(c.status.State, c.status.Reason, func(*ComponentStatus) {})
}

// Owned are the objects that the components which run have declared and made up, by ID; one that has
// not said yet what they are is not in it. A change of them is an event of Watch. What is in it is
// shared: nobody changes it.
func (s *Supervisor) Owned() map[string][]json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	owned := map[string][]json.RawMessage{}
	for _, c := range s.components {
		if c.owned != nil {
			owned[c.id] = c.owned
		}
	}
	return owned
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

// serveAs shows where the component serves as long as the state says that it does. The lock is
// held.
func (c *component) serveAs(state State) {
	c.status.Endpoints = nil
	if state.serving() {
		c.status.Endpoints = c.served
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
