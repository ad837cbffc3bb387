package nginx

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/settings"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
)

// readPatience bounds how long a configuration waits for objects that an Ingress began to
// name: what the API does not give is missing until it does.
const readPatience = 2 * time.Second

// The reasons of the component's own Events.
const (
	reasonRefused    = "ConfigurationRefused"
	reasonSetting    = "BadSetting"
	reasonParameters = "BadParameters"
)

// builder makes nginx's configuration of what the watches hold. One goroutine uses it.
type builder struct {
	cfg      config
	watches  *watches
	launcher *launcher
	store    *store
	env      render.Env
	log      hclog.Logger
	metrics  *metrics

	auditor kit.Auditor
	cache   *translate.Cache
	// selfSigned is for clients that ask for no host with a certificate.
	selfSigned *model.KeyPair

	// What the last look at the rules found.
	mine, left []*networkingv1.Ingress
	audit      kit.AuditResult
	settings   *settings.Settings
	certs      *model.KeyPair
	findings   []kit.Finding // of the classes and the settings

	// refused are the Ingresses that nginx refused, with its words, as long as they stay as
	// they were.
	refused map[types.UID]refusal
	seed    maphash.Seed

	// problems and rejected are what the last configuration's translation found.
	problems []kit.Finding
}

type refusal struct {
	print uint64 // of what the Ingress was
	text  string
}

// look reads the rules anew: which Ingresses, with which settings, and who loses.
func (b *builder) look(now time.Time) error {
	c := classesOf(list[*networkingv1.IngressClass](b.watches.classes))
	b.mine, b.left, b.findings = nil, nil, nil
	u := &used{services: map[types.NamespacedName]bool{}, secrets: map[types.NamespacedName]bool{}}
	for _, i := range list[*networkingv1.Ingress](b.watches.ingresses) {
		if !c.has(i) {
			if len(i.Status.LoadBalancer.Ingress) > 0 {
				b.left = append(b.left, i)
			}
			continue
		}
		b.mine = append(b.mine, i)
		refs := translate.ReferencesOf(i)
		for _, name := range refs.Services {
			u.services[name] = true
		}
		for _, name := range slices.Concat(refs.TLS, refs.Users) {
			u.secrets[name] = true
		}
	}
	backend, err := b.cfg.defaultBackend()
	if err != nil {
		return err
	}
	if backend != nil {
		u.services[backend.NamespacedName] = true
	}
	certificate, err := parseName(b.cfg.DefaultCertificate)
	if err == nil {
		u.secrets[certificate] = true
	}
	b.watches.use(u)
	if err := b.watches.secrets.Want(u.secrets, readPatience); err != nil {
		return err
	}
	if err := b.lookAtSettings(c); err != nil {
		return err
	}
	b.certs = b.selfSigned
	if b.cfg.DefaultCertificate != "" {
		pair, err := keyPair(b.watches.secrets.Secret(certificate.Namespace, certificate.Name))
		if err != nil {
			b.log.Warn("a certificate that nobody signed is served instead of the default certificate",
				"secret", b.cfg.DefaultCertificate, "err", err)
		} else {
			b.certs = pair
		}
	}
	// The translation looks for Services itself.
	b.audit = b.auditor.Run(kit.AuditInput{Ingresses: b.mine, Secret: b.watches.secrets.Secret, Exempt: isCanary, Now: now})
	b.metrics.ingresses.Store(int64(len(b.mine)))
	return nil
}

// isCanary tells of an Ingress that shares its paths with the one that it is a canary of.
func isCanary(i *networkingv1.Ingress) bool {
	return i.Annotations[annotationPrefix+"canary"] == "true"
}

// lookAtSettings reads the ConfigMaps: the component's own, then that of the class.
func (b *builder) lookAtSettings(c classes) error {
	own, err := parseName(b.cfg.ConfigMap)
	if err != nil {
		return err
	}
	names := []types.NamespacedName{own}
	if c.parameters != nil && *c.parameters != own {
		names = append(names, *c.parameters)
	}
	wanted := map[types.NamespacedName]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	if err := b.watches.configMaps.Want(wanted); err != nil {
		return err
	}
	b.watches.configMaps.Synced(readPatience)
	data := []map[string]string{b.cfg.Settings}
	var last *corev1.ConfigMap
	for _, name := range names {
		if m := b.watches.configMap(name); m != nil {
			data, last = append(data, m.Data), m
		}
	}
	var problems []settings.Problem
	b.settings, problems = settings.Parse(b.cfg.AllowSnippets, data...)
	for _, p := range problems {
		if last == nil {
			b.log.Warn("a setting is not taken", "key", p.Key, "problem", p.Message)
			continue
		}
		b.findings = append(b.findings, kit.Finding{Reason: reasonSetting, Message: p.Key + ": " + p.Message,
			Object: corev1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: last.Namespace, Name: last.Name, UID: last.UID}})
	}
	if c.problem != "" {
		b.findings = append(b.findings, kit.Finding{Object: reference(c.class), Reason: reasonParameters, Message: c.problem})
	}
	return nil
}

// build makes a configuration that nginx takes, of all Ingresses but those that it refuses.
// The error says why there is none at all.
func (b *builder) build(ctx context.Context, active string) (*generation, error) {
	b.forgive()
	for {
		g, out, err := b.render(func(i *networkingv1.Ingress) bool { _, refused := b.refused[i.UID]; return !refused })
		if err != nil {
			return nil, err
		}
		if g.id == active {
			return g, nil
		}
		err = b.launcher.test(ctx, g.conf)
		var verdict *verdictError
		if err == nil {
			return g, nil
		}
		b.store.discard(g)
		if !errors.As(err, &verdict) {
			return nil, err
		}
		b.metrics.refusals.Add(1)
		culprit, err := b.blame(ctx, out, verdict)
		if err != nil {
			return nil, err
		}
		b.log.Warn("an Ingress is left out, nginx refuses it", "ingress", nameOf(culprit), "err", verdict)
		b.refused[culprit.UID] = refusal{b.print(culprit), verdict.text}
	}
}

// render writes a configuration of some of the Ingresses.
func (b *builder) render(with func(*networkingv1.Ingress) bool) (*generation, *render.Output, error) {
	in := translate.Input{
		Service: b.watches.service, EndpointSlices: b.watches.endpointSlices, Secret: b.watches.secrets.Secret,
		Lost: b.lost, Settings: b.settings, Certificate: b.certs, Options: translate.Options{Snippets: b.cfg.AllowSnippets},
		Cache: b.cache,
	}
	in.Ingresses = make([]*networkingv1.Ingress, 0, len(b.mine))
	for _, i := range b.mine {
		if with(i) {
			in.Ingresses = append(in.Ingresses, i)
		}
	}
	var err error
	if in.DefaultBackend, err = b.cfg.defaultBackend(); err != nil {
		return nil, nil, err
	}
	translated := translate.Translate(in)
	out, err := render.Render(translated.Config, b.settings, b.env)
	if err != nil {
		return nil, nil, err
	}
	b.problems = b.problems[:0]
	told := map[types.UID]bool{} // of its secret
	for _, f := range b.audit.Findings {
		told[f.Object.UID] = told[f.Object.UID] || f.Reason == kit.ReasonSecretMissing || f.Reason == kit.ReasonSecretInvalid
	}
	for _, p := range translated.Problems {
		if i, ok := kit.Stored(b.watches.ingresses, p.Ingress).(*networkingv1.Ingress); ok && (p.Reason != translate.BadTLS || !told[i.UID]) {
			b.problems = append(b.problems, kit.Finding{Object: kit.Reference(i), Reason: string(p.Reason), Message: p.Message})
		}
	}
	g, err := b.store.write(out)
	return g, out, err
}

func (b *builder) lost(ingress types.NamespacedName, host, path string, pathType networkingv1.PathType) bool {
	claim := kit.ClaimOf(host, networkingv1.HTTPIngressPath{Path: path, PathType: &pathType})
	_, lost := b.audit.Lost[kit.Loss{Ingress: ingress, Claim: claim}]
	return lost
}

// blame finds the Ingress by which nginx refuses a configuration: the one whose line nginx
// names, or else the first, by age, that makes nginx refuse those before it.
func (b *builder) blame(ctx context.Context, out *render.Output, verdict *verdictError) (*networkingv1.Ingress, error) {
	if owner, ok := out.Owner(verdict.line); ok {
		at := slices.IndexFunc(b.mine, func(i *networkingv1.Ingress) bool { return nameOf(i) == owner })
		if at >= 0 && b.refused[b.mine[at].UID].text == "" {
			return b.mine[at], nil
		}
	}
	var suspects []*networkingv1.Ingress
	for _, i := range b.mine {
		if _, refused := b.refused[i.UID]; !refused {
			suspects = append(suspects, i)
		}
	}
	slices.SortFunc(suspects, func(x, y *networkingv1.Ingress) int { return kit.Older(x, y) })
	good, bad := -1, len(suspects) // how many of the oldest are taken, and are not
	for n := 0; bad-good > 1; n = (good + bad) / 2 {
		with := make(map[types.UID]bool, n)
		for _, i := range suspects[:n] {
			with[i.UID] = true
		}
		g, _, err := b.render(func(i *networkingv1.Ingress) bool { return with[i.UID] })
		if err != nil {
			return nil, err
		}
		err = b.launcher.test(ctx, g.conf)
		b.store.discard(g)
		var refused *verdictError
		switch {
		case err == nil:
			good = n
		case errors.As(err, &refused):
			bad = n
		default:
			return nil, err
		}
	}
	if bad == 0 {
		return nil, fmt.Errorf("%w; see the settings of %s", verdict, b.cfg.ConfigMap)
	}
	return suspects[bad-1], nil
}

// forgive forgets refusals of Ingresses that are not what they were.
func (b *builder) forgive() {
	if len(b.refused) == 0 {
		return
	}
	still := map[types.UID]refusal{}
	for _, i := range b.mine {
		if r, ok := b.refused[i.UID]; ok && r.print == b.print(i) {
			still[i.UID] = r
		}
	}
	b.refused = still
}

// print changes when an Ingress does, in what matters to a configuration.
func (b *builder) print(i *networkingv1.Ingress) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	fmt.Fprint(&h, i.Generation, i.Annotations) // fmt sorts maps
	return h.Sum64()
}

// all are the findings of the last configuration.
func (b *builder) all() []kit.Finding {
	all := slices.Concat(b.findings, b.audit.Findings, b.problems)
	for _, i := range b.mine {
		if r, ok := b.refused[i.UID]; ok {
			all = append(all, kit.Finding{Object: kit.Reference(i), Reason: reasonRefused,
				Message: "it is left out, since nginx refuses what is made of it: " + r.text})
		}
	}
	return all
}
