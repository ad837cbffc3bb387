package componentmetrics

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// label is the name of the label with a component's ID. What a component gives that name itself is
// called exportedLabel, as Prometheus does with such labels.
const (
	label         = "component"
	exportedLabel = "exported_component"
)

// corePrefixes begin the names of what the core's own process tells of itself. A component's are
// left out, whether the core has told them yet or not: of two processes under one name, nobody
// knows which one is meant.
var corePrefixes = []string{
	"go_", "process_", "promhttp_", "k3m_component_", "kubernetes_", "rest_client_", "workqueue_", "apiserver_", "aggregator_",
	"authentication_", "authorization_", "kubelet_", "kubeproxy_", "scheduler_", "etcd_", "leader_election_", "hidden_metric",
	"registered_metric", "disabled_metric",
}

// parse reads Prometheus' text format.
func parse(text []byte) (families map[string]*dto.MetricFamily, err error) {
	defer func() { // of code that reads what anybody wrote
		if p := recover(); p != nil {
			families, err = nil, fmt.Errorf("its metrics can't be read: %v", p)
		}
	}()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err = parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("its metrics can't be read: %w", err)
	}
	return families, nil
}

// namesOf are the names of the metrics that a registry's collectors have said they have.
func namesOf(registry prometheus.Collector) map[string]bool {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		registry.Describe(descs)
	}()
	names := map[string]bool{}
	for d := range descs {
		// Desc{fqName: "name", help: …}: the library has no other way to the name.
		if _, rest, ok := strings.Cut(d.String(), `fqName: "`); ok {
			name, _, _ := strings.Cut(rest, `"`)
			names[name] = true
		}
	}
	return names
}

// check takes the metrics of components and gives those that contradict nothing.
type check struct {
	reserved map[string]bool
	all      []*sample
	helps    map[string]string
}

func newCheck(reserved map[string]bool) *check {
	return &check{reserved: reserved, helps: map[string]string{}}
}

// add takes a component's families. Names that are the core's are left out.
func (c *check) add(id string, families map[string]*dto.MetricFamily) {
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if c.isCores(name) {
			continue
		}
		family := families[name]
		help, known := c.helps[name]
		if !known { // the first component that has a name says what it means
			help = family.GetHelp()
			c.helps[name] = help
		}
		desc := prometheus.NewDesc(name, help, nil, nil)
		for _, m := range family.GetMetric() {
			c.all = append(c.all, &sample{desc: desc, metric: labelled(m, id)})
		}
	}
}

// isCores tells a name that is the core's, or looks like a part of a histogram or summary of it.
func (c *check) isCores(name string) bool {
	if slices.ContainsFunc(corePrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) || c.reserved[name] {
		return true
	}
	for _, suffix := range []string{"_count", "_sum", "_bucket"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && c.reserved[base] || c.reserved[name+suffix] {
			return true
		}
	}
	return false
}

// metrics are those that a registry of their own finds consistent: it says of every sample that it
// leaves out that it does, and gives the others.
func (c *check) metrics() []prometheus.Metric {
	registry := prometheus.NewRegistry()
	if err := registry.Register(samples(c.all)); err != nil {
		return nil // an unchecked collector is never refused
	}
	families, _ := registry.Gather()
	var out []prometheus.Metric
	for _, f := range families {
		desc := prometheus.NewDesc(f.GetName(), f.GetHelp(), nil, nil)
		for _, m := range f.GetMetric() {
			out = append(out, &sample{desc: desc, metric: m})
		}
	}
	return out
}

// labelled adds the component's label.
func labelled(m *dto.Metric, id string) *dto.Metric {
	name := label
	pairs := []*dto.LabelPair{{Name: &name, Value: &id}}
	for _, p := range m.GetLabel() {
		if p.GetName() == label {
			exported := exportedLabel
			p = &dto.LabelPair{Name: &exported, Value: p.Value}
		}
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	m.Label = pairs
	return m
}

// sample is one metric as a component told it.
type sample struct {
	desc   *prometheus.Desc
	metric *dto.Metric
}

// Desc names it.
func (s *sample) Desc() *prometheus.Desc { return s.desc }

// Write gives its labels and value.
func (s *sample) Write(into *dto.Metric) error {
	if s.metric == nil {
		return errors.New("there is no metric")
	}
	into.Label, into.Gauge, into.Counter, into.Summary = s.metric.Label, s.metric.Gauge, s.metric.Counter, s.metric.Summary
	into.Untyped, into.Histogram, into.TimestampMs = s.metric.Untyped, s.metric.Histogram, s.metric.TimestampMs
	return nil
}

// samples is an unchecked collector of them.
type samples []*sample

// Describe names nothing.
func (s samples) Describe(chan<- *prometheus.Desc) {}

// Collect gives all.
func (s samples) Collect(out chan<- prometheus.Metric) {
	for _, m := range s {
		out <- m
	}
}
