package supervisor

import (
	"net/http"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// ComponentUser is the user of a component on a node.
func ComponentUser(id, node string) string { return "k3m:component:" + id + ":" + node }

// component gives a component on the asking node its certificate.
func (s *Supervisor) component(r *http.Request) (any, error) {
	node, err := s.node(r)
	if err != nil {
		return nil, err
	}
	if err := s.queue(r.Context(), "node "+node); err != nil {
		return nil, err
	}
	var req wire.ComponentRequest
	if err := decode(r.Body, &req); err != nil {
		return nil, err
	}
	groups, ok := s.opts.Component(req.ID, node)
	if !ok {
		return nil, refuse(http.StatusForbidden, "component %q is not selected for node %s: see k3m component list on a server", req.ID, node)
	}
	key, err := pki.RequestedKey([]byte(req.CSR))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the component's %v", err)
	}
	cert, err := s.opts.PKI.Client.Sign(pki.Client(ComponentUser(req.ID, node), groups...), key)
	if err != nil {
		return nil, err
	}
	return &wire.ComponentResponse{Cert: string(cert)}, nil
}
