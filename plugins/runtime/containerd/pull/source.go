package pull

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/k3m-io/k3m/registries"
)

// Transferrer is inner, but for pulls that CRI asks for: they follow the settings.
func (s *Settings) Transferrer(inner transfer.Transferrer) transfer.Transferrer {
	return transferrer{inner, s}
}

type transferrer struct {
	transfer.Transferrer
	settings *Settings
}

// Transfer does what containerd's own does, from another source where it is CRI's. That is
// told by the directory of settings, which no other client knows: `ctr` goes on as its flags
// say.
func (t transferrer) Transfer(ctx context.Context, src, dst any, opts ...transfer.Opt) error {
	asked, ok := src.(*registry.OCIRegistry)
	if !ok {
		return t.Transferrer.Transfer(ctx, src, dst, opts...)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	login := newConversation()
	defer context.AfterFunc(ctx, login.close)()
	defer login.close()
	said, err := describe(ctx, asked, login)
	if err != nil {
		return fmt.Errorf("read what is to be pulled: %w", err)
	}
	if said.GetResolver().GetHostDir() != t.settings.dir {
		return t.Transferrer.Transfer(ctx, src, dst, opts...)
	}
	from, err := t.settings.source(ctx, asked, said, login)
	if err != nil {
		return err
	}
	return t.Transferrer.Transfer(ctx, from, dst, opts...)
}

// describe has a registry say what it is in the words in which a client tells a server;
// the credentials that come with it are asked for in login.
func describe(ctx context.Context, asked *registry.OCIRegistry, login *conversation) (*transfertypes.OCIRegistry, error) {
	wire, err := asked.MarshalAny(ctx, login)
	if err != nil {
		return nil, err
	}
	said := &transfertypes.OCIRegistry{}
	return said, typeurl.UnmarshalTo(wire, said)
}

// source is a registry whose images come from where the settings say.
type source struct {
	*registry.OCIRegistry
	resolver remotes.Resolver
	ref      string
}

func (s *Settings) source(ctx context.Context, asked *registry.OCIRegistry, said *transfertypes.OCIRegistry, login *conversation) (*source, error) {
	spec, err := reference.Parse(said.GetReference())
	if err != nil {
		return nil, fmt.Errorf("read the name %q of an image: %w", said.GetReference(), err)
	}
	headers := http.Header{}
	for key, value := range said.GetResolver().GetHeaders() {
		headers.Add(key, value)
	}
	p := one{settings: s, registry: spec.Hostname(), reference: said.GetReference(), login: login,
		repository: strings.TrimPrefix(spec.Locator, spec.Hostname()+"/")}
	if said.GetResolver().GetAuthStream() == "" {
		p.login = nil
	}
	hosts := config.ConfigureHosts(ctx, config.HostOptions{
		HostDir:        config.HostDirFromRoot(s.dir),
		Credentials:    p.credentials,
		AuthorizerOpts: []docker.AuthorizerOpt{docker.WithAuthHeader(headers)},
	})
	return &source{asked, docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(registry string) ([]docker.RegistryHost, error) { return p.hosts(hosts, registry) },
		Headers: headers,
	}), said.GetReference()}, nil
}

// Resolve, Fetcher and SetResolverOptions are the parts of a source that a pull uses; here
// they are those of the resolver.
func (s *source) Resolve(ctx context.Context) (string, ocispec.Descriptor, error) {
	return s.resolver.Resolve(ctx, s.ref)
}

// Fetcher gets what ref is made of.
func (s *source) Fetcher(ctx context.Context, ref string) (transfer.Fetcher, error) {
	return s.resolver.Fetcher(ctx, ref)
}

// SetResolverOptions bounds the downloads.
func (s *source) SetResolverOptions(options ...transfer.ImageResolverOption) {
	if r, ok := s.resolver.(remotes.ResolverWithOptions); ok {
		r.SetOptions(options...)
	}
}

// one is a pull.
type one struct {
	settings   *Settings
	registry   string
	repository string
	reference  string
	// login asks whoever wants the image; nil when there is nothing to ask for.
	login *conversation
}

// credentials are what a host is shown. A mirror that has credentials of its own is not shown
// those of the registry (of a pod's pull secret); the registry itself is shown a pull secret
// rather than what the node has. Both empty: nothing is shown.
func (p one) credentials(host string) (user, secret string, err error) {
	p.settings.mu.RLock()
	ours := p.settings.current.Host(host).Auth
	p.settings.mu.RUnlock()
	if host != server(p.registry) && !ours.Empty() || p.login == nil {
		user, secret = words(ours)
		return user, secret, nil
	}
	user, secret, err = p.login.ask(p.reference, host)
	if err == nil && user == "" && secret == "" {
		user, secret = words(ours)
	}
	return user, secret, err
}

// words are credentials as containerd wants them: without a user, the secret is a refresh
// token.
func words(a registries.Auth) (user, secret string) {
	if a.IdentityToken != "" {
		return "", a.IdentityToken
	}
	return a.Username, a.Password
}

// hosts are those of the files, which rewrite what is asked of them if the settings say so.
func (p one) hosts(files docker.RegistryHosts, registry string) ([]docker.RegistryHost, error) {
	s := p.settings
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, err := files(registry)
	if err != nil {
		return nil, err
	}
	if slices.Contains(s.own, registry) {
		return found, nil
	}
	if _, ok := s.current.Mirror(registry); !ok {
		return found, nil
	}
	planned := s.hosts(s.current, registry)
	if len(planned) != len(found) {
		return nil, fmt.Errorf("the settings of registry %s below %s are not those that k3m wrote; remove them and restart the runtime", registry, s.dir)
	}
	for i := range found {
		name := planned[i].rewrite.Rewrite(p.repository)
		if name == p.repository {
			continue
		}
		client := *found[i].Client // the others, and whoever asks for tokens, keep theirs
		client.Transport = rewriter{client.Transport, found[i].Host,
			path.Join("/", found[i].Path, p.repository) + "/", path.Join("/", found[i].Path, name) + "/"}
		found[i].Client = &client
	}
	return found, nil
}

// rewriter asks a host for another repository.
type rewriter struct {
	http.RoundTripper
	host     string
	from, to string // prefixes of paths
}

// RoundTrip leaves requests to others (after a redirect) as they are.
func (r rewriter) RoundTrip(request *http.Request) (*http.Response, error) {
	rest, ok := strings.CutPrefix(request.URL.Path, r.from)
	if !ok || request.URL.Host != r.host {
		return r.RoundTripper.RoundTrip(request)
	}
	request = request.Clone(request.Context())
	request.URL.Path, request.URL.RawPath = r.to+rest, ""
	return r.RoundTripper.RoundTrip(request)
}
