package sdk

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/k3m-io/k3m/sdk/nearest"
)

// Bounds of an Info: far above what a component needs, far below what would hurt.
const (
	maxItems   = 256     // of any list
	maxWord    = 253     // of a name, a verb, an image reference, in bytes
	maxSummary = 200     // in bytes
	maxSchema  = 1 << 18 // in bytes
	maxObject  = 1 << 20 // of one object, in bytes
)

var (
	identifier = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
	// The forms of Kubernetes' names: DNS labels and subdomains, label keys and values.
	service    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)
	labelKey   = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)
	labelValue = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$`)
	// image is loose: the runtime has the last word on references.
	image = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]*$`)
)

// Validate checks that the Info keeps the contract: what it says is well-formed, within
// bounds, and consistent. It is what a host does with an Info that it was told, and what
// Serve does before it tells one. The error names the component and the first fault.
func (i Info) Validate() error {
	for _, check := range []func(Info) error{
		Info.validateWords, Info.validateRequires, Info.validateRules,
		Info.validatePrivileges, Info.validateOffers, Info.validateServices, Info.validateObjects,
	} {
		if err := check(i); err != nil {
			return fmt.Errorf("validate component %q: %w", i.ID(), err)
		}
	}
	return nil
}

func (i Info) validateWords() error {
	if !identifier.MatchString(i.Kind) {
		return fmt.Errorf("kind %q does not match %s", i.Kind, identifier)
	}
	if !identifier.MatchString(i.Name) {
		return fmt.Errorf("name %q does not match %s", i.Name, identifier)
	}
	if err := checkWord("version", i.Version); err != nil {
		return err
	}
	if err := checkLine("summary", i.Summary, maxSummary); err != nil {
		return err
	}
	if i.Scope != NodeScope && i.Scope != ServerScope {
		return fmt.Errorf("scope %q is neither %q nor %q", i.Scope, NodeScope, ServerScope)
	}
	return nil
}

func (i Info) validateRequires() error {
	if len(i.Requires) > maxItems {
		return fmt.Errorf("requires: more than %d entries", maxItems)
	}
	for n, r := range i.Requires {
		switch {
		case !identifier.MatchString(string(r)):
			return fmt.Errorf("requires %q, which is neither %q, %q nor a kind", r, RequiresAPI, RequiresNode)
		case string(r) == i.Kind:
			return fmt.Errorf("requires its own kind %q", r)
		case slices.Contains(i.Requires[:n], r):
			return fmt.Errorf("requires %q twice", r)
		}
	}
	return nil
}

func (i Info) validateRules() error {
	if len(i.Rules) > 0 && !slices.Contains(i.Requires, RequiresAPI) {
		return fmt.Errorf("has API rules but does not require %q", RequiresAPI)
	}
	if len(i.Rules) > maxItems {
		return fmt.Errorf("rules: more than %d entries", maxItems)
	}
	for n, r := range i.Rules {
		if err := r.validate(); err != nil {
			return fmt.Errorf("rules[%d]: %w", n, err)
		}
	}
	return nil
}

// validate repeats what the API's own validation of a ClusterRole says.
func (r Rule) validate() error {
	switch {
	case len(r.Verbs) == 0:
		return fmt.Errorf("names no verb")
	case len(r.NonResourceURLs) > 0 && len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0:
		return fmt.Errorf("names resources and non-resource URLs; make it two rules")
	case len(r.NonResourceURLs) == 0 && (len(r.APIGroups) == 0 || len(r.Resources) == 0):
		return fmt.Errorf(`names no API group or no resource (the core group is "")`)
	}
	for _, list := range []struct {
		field  string
		values []string
	}{
		{"verbs", r.Verbs}, {"apiGroups", r.APIGroups}, {"resources", r.Resources},
		{"resourceNames", r.ResourceNames}, {"nonResourceURLs", r.NonResourceURLs},
	} {
		if len(list.values) > maxItems {
			return fmt.Errorf("%s: more than %d entries", list.field, maxItems)
		}
		for _, v := range list.values {
			if v == "" && list.field == "apiGroups" {
				continue
			}
			if err := checkWord(list.field, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i Info) validatePrivileges() error {
	for n, c := range i.Privileges.Capabilities {
		if slices.Contains(i.Privileges.Capabilities[:n], c) {
			return fmt.Errorf("privileges: capability %s twice", c)
		}
		if !slices.Contains(capabilities, c) {
			hint := ""
			if near := nearest.To(c, capabilities); near != "" {
				hint = fmt.Sprintf("; did you mean %s?", near)
			}
			return fmt.Errorf("privileges: unknown capability %q%s", c, hint)
		}
	}
	if i.Limits.MemoryBytes < 0 || i.Limits.CPUMilli < 0 {
		return fmt.Errorf("limits: a limit is negative; zero means none")
	}
	return nil
}

func (i Info) validateOffers() error {
	if len(i.Images) > maxItems || len(i.Commands) > maxItems || len(i.Abilities) > maxItems {
		return fmt.Errorf("images, commands or abilities: more than %d entries", maxItems)
	}
	for _, r := range i.Images {
		if len(r) > 2*maxWord || !image.MatchString(r) {
			return fmt.Errorf("images: %.80q is no image reference", r)
		}
	}
	if err := i.validateSchema(); err != nil {
		return fmt.Errorf("config schema: %w", err)
	}
	for n, c := range i.Commands {
		if !identifier.MatchString(c.Name) {
			return fmt.Errorf("commands: name %q does not match %s", c.Name, identifier)
		}
		if slices.ContainsFunc(i.Commands[:n], func(o Command) bool { return o.Name == c.Name }) {
			return fmt.Errorf("commands: %q twice", c.Name)
		}
		if err := checkLine("commands: summary of "+c.Name, c.Summary, maxSummary); err != nil {
			return err
		}
	}
	if len(i.Commands) > 0 && !i.Has(AbilityCommand) {
		return fmt.Errorf("lists commands but does not serve them: implement Commander")
	}
	for n, a := range i.Abilities {
		if !identifier.MatchString(a) || slices.Contains(i.Abilities[:n], a) {
			return fmt.Errorf("abilities: %.40q is malformed or there twice", a)
		}
	}
	return nil
}

func (i Info) validateServices() error {
	if len(i.Services) > maxItems || len(i.Labels) > maxItems {
		return fmt.Errorf("services or labels: more than %d entries", maxItems)
	}
	for n, s := range i.Services {
		if !service.MatchString(s) {
			return fmt.Errorf("services: %.80q is not <namespace>/<name>", s)
		}
		if s == apiService {
			return fmt.Errorf("services: %s is the API itself, which no component serves", s)
		}
		if slices.Contains(i.Services[:n], s) {
			return fmt.Errorf("services: %s twice", s)
		}
	}
	if i.ServingCertificate && (len(i.Services) == 0 || !slices.Contains(i.Requires, RequiresAPI)) {
		return fmt.Errorf("asks for a serving certificate: name the Services that it is for, and require %q", RequiresAPI)
	}
	for key, value := range i.Labels {
		if !labelKey.MatchString(key) || !labelValue.MatchString(value) {
			return fmt.Errorf("labels: %.80q: %.80q is no label", key, value)
		}
	}
	return nil
}

func (i Info) validateSchema() error {
	if i.ConfigSchema == nil {
		return nil
	}
	if len(i.ConfigSchema) > maxSchema {
		return fmt.Errorf("larger than %d bytes", maxSchema)
	}
	s, err := parseSchema(i.ConfigSchema)
	if err != nil {
		return err
	}
	if s.Type != "object" {
		return fmt.Errorf(`want "type": "object", have %q: a configuration block is a map`, s.Type)
	}
	for _, key := range s.Required {
		if _, ok := s.Properties[key]; !ok {
			return fmt.Errorf("requires %q, which is no property", key)
		}
	}
	return nil
}

// checkWord accepts one printable word.
func checkWord(field, s string) error {
	if strings.ContainsFunc(s, unicode.IsSpace) {
		return fmt.Errorf("%s: %.80q holds white space", field, s)
	}
	return checkLine(field, s, maxWord)
}

// checkLine accepts one printable, non-empty line, since these texts reach terminals.
func checkLine(field, s string, most int) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty", field)
	case len(s) > most:
		return fmt.Errorf("%s is longer than %d bytes", field, most)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%s: %.80q holds characters that don't print", field, s)
	}
	return nil
}

// capabilities are Linux' own, in the order of their numbers (linux/capability.h).
var capabilities = strings.Fields(`
CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP
CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER
CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE
CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP
CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF
CAP_CHECKPOINT_RESTORE`)

// Capabilities returns the kernel's capability names in the order of their numbers,
// CAP_CHOWN (0) first.
func Capabilities() []string { return slices.Clone(capabilities) }

// Differences lists the fields in which other says something else than i, each as
// "field: i's value -> other's value" in JSON; none when a host may take one for the
// other. An empty list and a missing one are the same.
func (i Info) Differences(other Info) []string {
	mine, theirs := i.fields(), other.fields()
	keys := sortedKeys(mine)
	for _, k := range sortedKeys(theirs) {
		if _, ok := mine[k]; !ok {
			keys = append(keys, k)
		}
	}
	var out []string
	for _, k := range keys {
		a, b := jsonText(mine[k]), jsonText(theirs[k])
		if a != b {
			out = append(out, fmt.Sprintf("%s: %s -> %s", k, a, b))
		}
	}
	return out
}

// fields is i's JSON object, so that formatting and empty lists don't count.
func (i Info) fields() map[string]any {
	raw, err := json.Marshal(i)
	if err != nil { // only a ConfigSchema that is no JSON
		i.ConfigSchema, _ = json.Marshal(string(i.ConfigSchema))
		raw, _ = json.Marshal(i)
	}
	var m map[string]any
	_ = json.Unmarshal(raw, &m)
	return m
}

func jsonText(v any) string {
	if v == nil {
		return "none"
	}
	raw, _ := json.Marshal(v)
	return string(raw)
}
