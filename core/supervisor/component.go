package supervisor

import (
	"crypto"
	"net/http"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// ComponentUser is the user of a component on a node.
func ComponentUser(id, node string) string { return "k3m:component:" + id + ":" + node }

// component gives a component on the asking node its client certificate.
func (s *Supervisor) component(r *http.Request) (any, error) {
	node, req, err := s.componentRequest(r)
	if err != nil {
		return nil, err
	}
	groups, ok := s.opts.Component(req.ID, node)
	if !ok {
		return nil, refuse(http.StatusForbidden, "component %q is not selected for node %s: see k3m component list on a server", req.ID, node)
	}
	return s.certify(s.opts.PKI.Client, pki.Client(ComponentUser(req.ID, node), groups...), req)
}

// componentServing gives a component on the asking node a certificate for the DNS names of its
// Services.
func (s *Supervisor) componentServing(r *http.Request) (any, error) {
	node, req, err := s.componentRequest(r)
	if err != nil {
		return nil, err
	}
	services, ok := []string(nil), false
	if s.opts.Services != nil {
		services, ok = s.opts.Services(req.ID, node)
	}
	if !ok || len(services) == 0 {
		return nil, refuse(http.StatusForbidden, "component %q is not selected for node %s, or serves nothing with TLS: see k3m component list on a server", req.ID, node)
	}
	var names []string
	for _, service := range services {
		names = append(names, serviceNames(service, s.opts.Cluster.ClusterDomain)...)
	}
	for _, name := range names {
		if slices.Contains(s.opts.API.DNSNames, name) {
			return nil, refuse(http.StatusForbidden, "component %q asks for a certificate with the API's name %s, which is the API's alone", req.ID, name)
		}
	}
	return s.certify(s.opts.PKI.Server, pki.Serving(ComponentUser(req.ID, node), pki.SANs{DNSNames: names}), req)
}

// serviceNames are the names by which clients in the cluster find a Service,
// "<namespace>/<name>"; its bare name, which means another in each namespace, is not among
// them.
func serviceNames(service, domain string) []string {
	namespace, name, _ := strings.Cut(service, "/")
	short := name + "." + namespace
	return []string{short, short + ".svc", short + ".svc." + domain}
}

// componentRequest reads a node's request for a certificate of a component.
func (s *Supervisor) componentRequest(r *http.Request) (node string, req wire.ComponentRequest, err error) {
	if node, err = s.node(r); err != nil {
		return "", req, err
	}
	if err := s.queue(r.Context(), "node "+node); err != nil {
		return "", req, err
	}
	return node, req, decode(r.Body, &req)
}

func (s *Supervisor) certify(by *pki.Authority, leaf pki.Leaf, req wire.ComponentRequest) (any, error) {
	key, err := requestedKey(req)
	if err != nil {
		return nil, err
	}
	cert, err := by.Sign(leaf, key)
	if err != nil {
		return nil, err
	}
	return &wire.ComponentResponse{Cert: string(cert)}, nil
}

func requestedKey(req wire.ComponentRequest) (crypto.PublicKey, error) {
	key, err := pki.RequestedKey([]byte(req.CSR))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the component's %v", err)
	}
	return key, nil
}
