package translate

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/k3m-io/k3m/plugins/ingress/nginx/model"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/value"
)

// reserved begins the paths that the renderer makes for itself.
const reserved = "/_k3m_"

// addPath takes one path of a rule.
func (b *builder) addPath(s *server, ing *ingress, host string, path *networkingv1.HTTPIngressPath) {
	kind := networkingv1.PathTypeImplementationSpecific
	if path.PathType != nil {
		kind = *path.PathType
	}
	if b.in.Lost != nil && b.in.Lost(ing.id, host, path.Path, kind) {
		return
	}
	text, match, err := readPath(ing, path.Path, kind)
	if err != nil {
		b.problem(ing, BadRule, "path %s: %v; it is left out", value.Show(path.Path), err)
		return
	}
	key := claim(text, match)
	if first := s.claims[key]; first != nil {
		if first.Owner != ing.id {
			b.problem(ing, DuplicatePath, "host %s, path %s: Ingress %s has it already; this one is left out", hostOf(s), value.Show(path.Path),
				first.Owner)
		} else if first.Path != text || first.Service != serviceOf(path) {
			b.problem(ing, DuplicatePath, "host %s, path %s: another path of this Ingress says the same; the first is served", hostOf(s),
				value.Show(path.Path))
		}
		return
	}
	loc := b.location(ing, &path.Backend, text, match)
	s.claims[key] = &place{Location: loc, said: ing.said}
	s.Locations = append(s.Locations, loc)
}

func serviceOf(path *networkingv1.HTTPIngressPath) string {
	if path.Backend.Service == nil {
		return ""
	}
	return path.Backend.Service.Name
}

// readPath says how a path is compared.
func readPath(ing *ingress, path string, kind networkingv1.PathType) (string, model.Match, error) {
	if path == "" {
		path = "/"
	}
	switch {
	case path[0] != '/':
		return "", 0, fmt.Errorf("it does not begin with /")
	case len(path) > value.MaxText:
		return "", 0, fmt.Errorf("it has %d bytes, want %d at most", len(path), value.MaxText)
	case kind != networkingv1.PathTypeExact && isRegex(ing, path):
		if _, err := value.Regexp(path); err != nil {
			return "", 0, err
		}
		return path, model.Regex, nil
	}
	// nginx compares with what it decoded.
	if plain, err := url.PathUnescape(path); err == nil {
		path = plain
	}
	if _, err := value.Text(path); err != nil {
		return "", 0, err
	}
	if strings.HasPrefix(path, reserved) {
		return "", 0, fmt.Errorf("paths that begin with %s are the controller's own", reserved)
	}
	switch kind {
	case networkingv1.PathTypeExact:
		return path, model.Exact, nil
	case networkingv1.PathTypePrefix:
		return "/" + strings.Trim(path, "/"), model.Prefix, nil
	case networkingv1.PathTypeImplementationSpecific:
		if path == "/" {
			return path, model.Prefix, nil
		}
		return path, model.TextPrefix, nil
	default:
		return "", 0, fmt.Errorf("the path type %s is unknown", value.Show(string(kind)))
	}
}

// isRegex tells whether a path is a regular expression: where use-regex says so, or where it
// is rewritten and looks like one.
func isRegex(ing *ingress, path string) bool {
	return ing.said.UseRegex || ing.said.Policy.Rewrite != "" && strings.ContainsAny(path, `()[]^$*+?|\`)
}

// claim is what a path takes: two of one claim can't both be served.
func claim(path string, match model.Match) string {
	switch match {
	case model.Exact:
		return "=" + path
	case model.Prefix:
		return "^" + strings.TrimSuffix(path, "/") + "/"
	case model.TextPrefix:
		return "^" + path
	default:
		return "~" + path
	}
}

// order sorts locations: what is exact first, then the longest, and says whether nginx has to
// try them one after another. It has where one is a regular expression: nginx would prefer
// the longest plain prefix over none of them, or them over all.
func order(locations []*model.Location) {
	slices.SortStableFunc(locations, func(a, b *model.Location) int {
		return cmp.Or(exactFirst(a, b), cmp.Compare(len(b.Path), len(a.Path)), strings.Compare(a.Path, b.Path), cmp.Compare(a.Match, b.Match))
	})
	if !slices.ContainsFunc(locations, func(l *model.Location) bool { return l.Match == model.Regex }) {
		return
	}
	for _, loc := range locations {
		loc.Ordered = loc.Match != model.Exact
	}
}

func exactFirst(a, b *model.Location) int {
	switch {
	case a.Match == model.Exact && b.Match != model.Exact:
		return -1
	case a.Match != model.Exact && b.Match == model.Exact:
		return 1
	}
	return 0
}
