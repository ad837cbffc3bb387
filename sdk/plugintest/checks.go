package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/client"
)

func checkInfo(t *testing.T, o Options, start starter) {
	t.Run("info is valid and the same at each call and in each process", func(t *testing.T) {
		p, other := start(t), start(t)
		first := info(t, p)
		for _, again := range []*peer{p, other} {
			if differences := first.Differences(info(t, again)); len(differences) > 0 {
				t.Errorf("info changed: %v", differences)
			}
		}
	})
	t.Run("info is the one on record", func(t *testing.T) {
		if o.Record == nil {
			t.Skip("Options.Record is not given")
		}
		if differences := o.Record.Differences(info(t, start(t))); len(differences) > 0 {
			t.Errorf("info is not the one on record: %v", differences)
		}
	})
}

const unknownKey = "k3mPlugintestUnknownKey"

func checkConfig(t *testing.T, o Options, start starter) {
	t.Run("a good configuration is accepted", func(t *testing.T) {
		if problems := validate(t, start(t), o.Config); len(problems) > 0 {
			t.Errorf("problems with %s: %v", o.Config, problems)
		}
	})
	t.Run("an unknown configuration key is refused by name", func(t *testing.T) {
		p := start(t)
		if !closed(info(t, p).ConfigSchema) {
			t.Skip("the configuration schema allows additional properties")
		}
		config := map[string]json.RawMessage{}
		if o.Config != nil {
			if err := json.Unmarshal(o.Config, &config); err != nil {
				t.Fatalf("Options.Config: %v", err)
			}
		}
		config[unknownKey] = json.RawMessage("1")
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		wantProblem(t, validate(t, p, raw), unknownKey)
	})
	for _, bad := range o.BadConfigs {
		t.Run("a bad configuration is refused with its place: "+bad.Name, func(t *testing.T) {
			wantProblem(t, validate(t, start(t), bad.Config), bad.Path)
		})
	}
}

// closed tells whether a schema refuses keys that it does not name.
func closed(schema json.RawMessage) bool {
	if schema == nil {
		return true
	}
	var s struct {
		AdditionalProperties any `json:"additionalProperties"`
	}
	return json.Unmarshal(schema, &s) == nil && s.AdditionalProperties == false
}

// validate does what k3m does: the schema first, then the plugin where it can.
func validate(t *testing.T, p *peer, config json.RawMessage) []sdk.ConfigProblem {
	t.Helper()
	i := info(t, p)
	if !i.Has(sdk.AbilityValidateConfig) {
		return sdk.CheckConfig(i.ConfigSchema, config)
	}
	problems, err := p.ValidateConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return problems
}

func wantProblem(t *testing.T, problems []sdk.ConfigProblem, path string) {
	t.Helper()
	for _, p := range problems {
		if p.Message == "" {
			t.Errorf("a problem at %q without a message", p.Path)
		}
		if p.Path == path {
			return
		}
	}
	t.Errorf("no problem at %q; problems are %v", path, problems)
}

func checkRun(t *testing.T, o Options, start starter) {
	t.Run("a component that was stopped before it ran does not run", func(t *testing.T) {
		p := start(t)
		if err := p.Stop(t.Context()); err != nil {
			t.Fatalf("stop: %v", err)
		}
		var refusal *client.ComponentError
		err := p.Run(t.Context(), request(t, o), func(client.Report) {})
		if !errors.As(err, &refusal) {
			t.Errorf("run after stop: %v, want a refusal", err)
		}
	})
	t.Run("it becomes ready, works, and stop ends it in time", func(t *testing.T) {
		skipRun(t, o)
		p := start(t)
		before := info(t, p)
		r := run(t, o, p)
		r.ready(t, before)
		if differences := before.Differences(info(t, p)); len(differences) > 0 {
			t.Errorf("info changed while it ran: %v", differences)
		}
		t.Run("its metrics can be read", func(t *testing.T) { checkMetrics(t, p, before) })
		if o.WhileReady != nil {
			o.WhileReady(t, o.Facts)
		}
		t.Run("only once in a process", func(t *testing.T) {
			if err := p.Run(t.Context(), request(t, o), func(client.Report) {}); err == nil {
				t.Error("a second run was not refused")
			}
		})
		r.stop(t, o, p)
	})
	t.Run("the loss of its host ends it", func(t *testing.T) {
		skipRun(t, o)
		p := start(t)
		r := run(t, o, p)
		r.ready(t, info(t, p))
		p.loseHost()
		if !within(hostLossGrace, p.gone) {
			t.Errorf("it goes on %s after its host was lost", hostLossGrace)
		}
	})
}

func checkCleanup(t *testing.T, o Options, start starter) {
	t.Run("cleanup bears that there is nothing to remove, and twice", func(t *testing.T) {
		p := start(t)
		if !info(t, p).Has(sdk.AbilityCleanup) {
			t.Skip("the component leaves nothing on the host: it is no Cleaner")
		}
		if o.SkipCleanup != "" {
			t.Skip(o.SkipCleanup)
		}
		for range 2 {
			if err := p.Cleanup(t.Context(), client.CleanupRequest{
				Facts: o.Facts, Config: o.Config, StateDir: t.TempDir(),
			}); err != nil {
				t.Error(err)
			}
		}
	})
}

func skipRun(t *testing.T, o Options) {
	t.Helper()
	if o.SkipRun != "" {
		t.Skip(o.SkipRun)
	}
}

func info(t *testing.T, p *peer) sdk.Info {
	t.Helper()
	i, err := p.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func request(t *testing.T, o Options) client.RunRequest {
	return client.RunRequest{Facts: o.Facts, Kubeconfig: o.Kubeconfig, Config: o.Config, StateDir: t.TempDir(),
		ServingCert: o.ServingCert, ServingKey: o.ServingKey}
}

// running is a Run that goes on.
type running struct {
	o       Options
	reports chan client.Report
	ended   chan struct{}
	err     error
}

func run(t *testing.T, o Options, p *peer) *running {
	t.Helper()
	r := &running{o: o, reports: make(chan client.Report, 1), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	request := request(t, o)
	go func() {
		defer close(r.ended)
		r.err = p.Run(ctx, request, func(report client.Report) {
			select {
			case r.reports <- report:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
	})
	return r
}
