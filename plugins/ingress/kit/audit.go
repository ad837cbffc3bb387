package kit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Claim is what at most one Ingress can have.
type Claim struct {
	Host, Path string
	PathType   networkingv1.PathType
}

// Loss is a Claim of an Ingress that an older one has.
type Loss struct {
	Ingress types.NamespacedName
	Claim
}

// AuditInput is the cluster as an audit looks at it. Objects are read, never changed.
type AuditInput struct {
	// Ingresses are those of the component's classes.
	Ingresses []*networkingv1.Ingress
	// Service and Secret return nil when there is none. A nil func leaves that part of the
	// audit out.
	Service func(namespace, name string) *corev1.Service
	Secret  func(namespace, name string) *corev1.Secret
	// Exempt, if not nil, tells of an Ingress whose claims compete with nobody's: a canary.
	Exempt func(*networkingv1.Ingress) bool
	Now    time.Time
}

// AuditResult is what an audit found.
type AuditResult struct {
	// Lost has the winner of each claim that an Ingress loses. The component leaves these
	// paths out.
	Lost map[Loss]types.NamespacedName
	// Findings are for Recorder.Sync.
	Findings []Finding
	// Again is when time alone changes the result: a certificate expires, or becomes valid.
	// Zero is never.
	Again time.Time
}

// Auditor audits. It remembers what it read of a secret as long as that does not change, so
// that an audit of many Ingresses is cheap. One goroutine may use it at a time.
type Auditor struct {
	certificates map[types.UID]certificateVerdict
}

// Run audits.
func (a *Auditor) Run(in AuditInput) AuditResult {
	result := AuditResult{Lost: map[Loss]types.NamespacedName{}}
	ordered := slices.Clone(in.Ingresses)
	slices.SortFunc(ordered, Older)
	winners := make(map[Claim]*networkingv1.Ingress, len(ordered))
	remembered := a.certificates
	a.certificates = make(map[types.UID]certificateVerdict, len(remembered))
	for _, ingress := range ordered {
		find := func(reason, format string, args ...any) {
			result.Findings = append(result.Findings, Finding{Reference(ingress), reason, fmt.Sprintf(format, args...)})
		}
		if in.Exempt == nil || !in.Exempt(ingress) {
			claim(ingress, winners, &result, find)
		}
		if in.Service != nil {
			backends(ingress, in.Service, find)
		}
		if in.Secret == nil {
			continue
		}
		seen := map[string]bool{}
		for _, tls := range ingress.Spec.TLS {
			if tls.SecretName == "" || seen[tls.SecretName] {
				continue // no name: the default certificate
			}
			seen[tls.SecretName] = true
			secret := in.Secret(ingress.Namespace, tls.SecretName)
			if secret == nil {
				find(ReasonSecretMissing, "secret %s/%s does not exist, the default certificate is served; make it: "+
					"kubectl -n %[1]s create secret tls %[2]s --cert=… --key=…", ingress.Namespace, tls.SecretName)
				continue
			}
			verdict, known := remembered[secret.UID]
			if !known || verdict.version != secret.ResourceVersion {
				verdict = judge(secret)
			}
			a.certificates[secret.UID] = verdict
			if reason, text := verdict.problem(in.Now); reason != "" {
				find(reason, "secret %s/%s: %s", secret.Namespace, secret.Name, text)
			}
			for _, at := range []time.Time{verdict.notBefore, verdict.notAfter} {
				if at.After(in.Now) && (result.Again.IsZero() || at.Before(result.Again)) {
					result.Again = at
				}
			}
		}
	}
	return result
}

// Older orders Ingresses by age, then by name: the first wins what two claim.
func Older(a, b *networkingv1.Ingress) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// claim gives an Ingress its paths, unless an older one has them.
func claim(ingress *networkingv1.Ingress, winners map[Claim]*networkingv1.Ingress, result *AuditResult,
	find func(reason, format string, args ...any)) {
	for _, c := range Claims(ingress) {
		winner := winners[c]
		if winner == nil {
			winners[c] = ingress
			continue
		}
		if winner == ingress {
			continue // twice in one Ingress: the first stands, and people see both
		}
		by := types.NamespacedName{Namespace: winner.Namespace, Name: winner.Name}
		result.Lost[Loss{types.NamespacedName{Namespace: ingress.Namespace, Name: ingress.Name}, c}] = by
		find(ReasonDuplicatePath, "%s is left out: Ingress %s, which is older, has it; remove it from one of the two", c, by)
	}
}

// Claims are what an Ingress claims by its rules.
func Claims(ingress *networkingv1.Ingress) []Claim {
	var all []Claim
	for _, rule := range ingress.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for _, path := range rule.HTTP.Paths {
			all = append(all, ClaimOf(rule.Host, path))
		}
	}
	return all
}

// ClaimOf is the claim of one path of a rule.
func ClaimOf(host string, path networkingv1.HTTPIngressPath) Claim {
	c := Claim{Host: strings.ToLower(host), Path: path.Path, PathType: networkingv1.PathTypeImplementationSpecific}
	if path.PathType != nil {
		c.PathType = *path.PathType
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.PathType == networkingv1.PathTypePrefix && c.Path != "/" {
		c.Path = strings.TrimRight(c.Path, "/") // the spec takes both for the same
		if c.Path == "" {
			c.Path = "/"
		}
	}
	return c
}

// String is "Prefix path /a of host b".
func (c Claim) String() string {
	host := "host " + c.Host
	if c.Host == "" {
		host = "all hosts"
	}
	return fmt.Sprintf("%s path %s of %s", c.PathType, c.Path, host)
}

// backends looks for Services and ports that are not there.
func backends(ingress *networkingv1.Ingress, service func(namespace, name string) *corev1.Service,
	find func(reason, format string, args ...any)) {
	seen := map[string]bool{}
	look := func(b *networkingv1.IngressServiceBackend) {
		if b == nil {
			return
		}
		key := fmt.Sprintf("%s:%s%d", b.Name, b.Port.Name, b.Port.Number)
		if seen[key] {
			return
		}
		seen[key] = true
		s := service(ingress.Namespace, b.Name)
		switch {
		case s == nil:
			find(ReasonBackendMissing, "Service %s/%s does not exist, its paths are answered with 503; make it, or name another",
				ingress.Namespace, b.Name)
		case ServicePort(s, b.Port) == nil && s.Spec.Type != corev1.ServiceTypeExternalName:
			port := b.Port.Name
			if port == "" {
				port = fmt.Sprint(b.Port.Number)
			}
			find(ReasonBackendMissing, "Service %s/%s has no port %s, its paths are answered with 503; it has %s",
				ingress.Namespace, b.Name, port, ports(s))
		}
	}
	if b := ingress.Spec.DefaultBackend; b != nil {
		look(b.Service)
	}
	for _, rule := range ingress.Spec.Rules {
		if rule.HTTP == nil {
			continue
		}
		for _, path := range rule.HTTP.Paths {
			look(path.Backend.Service)
		}
	}
}

// ServicePort is the Service's port that a backend names, by name or number; nil if it has
// none.
func ServicePort(s *corev1.Service, port networkingv1.ServiceBackendPort) *corev1.ServicePort {
	for i, p := range s.Spec.Ports {
		if port.Name != "" && p.Name == port.Name || port.Name == "" && p.Port == port.Number {
			return &s.Spec.Ports[i]
		}
	}
	return nil
}

func ports(s *corev1.Service) string {
	var all []string
	for _, p := range s.Spec.Ports {
		text := fmt.Sprint(p.Port)
		if p.Name != "" {
			text += " (" + p.Name + ")"
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// Reference is an Ingress as an Event names it.
func Reference(i *networkingv1.Ingress) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress",
		Namespace: i.Namespace, Name: i.Name, UID: i.UID}
}
