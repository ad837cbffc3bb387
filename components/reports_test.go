package components

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/k3m-io/k3m/sdk/client"
)

// A component whose reason changes endlessly is heard now and then, and at last.
func TestReportsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken []string
		r := newReports(func(report client.Report) { taken = append(taken, report.(client.Degraded).Reason) })
		const seconds, perSecond = 10, 1000
		for n := range seconds * perSecond {
			r.add(client.Degraded{Reason: fmt.Sprint(n)})
			time.Sleep(time.Second / perSecond)
		}
		time.Sleep(2 * reportInterval)
		if most := reportBurst + 2*(seconds+1); len(taken) > most || len(taken) < seconds {
			t.Errorf("%d reports were handed on, want %d to %d", len(taken), seconds, most)
		}
		if last := taken[len(taken)-1]; last != fmt.Sprint(seconds*perSecond-1) {
			t.Errorf("the last report that was handed on is %s", last)
		}
		r.end()
	})
}

func TestLateReports(t *testing.T) {
	degraded := func(reason string) client.Report { return client.Degraded{Reason: reason} }
	runtime := func(endpoint string) client.Report { return client.RuntimeReady{Endpoint: endpoint} }
	tests := map[string]struct {
		before, late []client.Report
		atOnce, then string
	}{
		"the newest counts":           {nil, []client.Report{degraded("a"), degraded("b")}, "[]", "[{b}]"},
		"ready takes back":            {[]client.Report{client.Ready{}}, []client.Report{degraded("a"), client.Ready{}}, "[]", "[{}]"},
		"the first ready is not late": {nil, []client.Report{degraded("a"), client.Ready{}, degraded("b")}, "[{}]", "[{b}]"},
		"subjects in order":           {nil, []client.Report{runtime("x"), degraded("a"), runtime("y")}, "[]", "[{a} {y}]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var taken []client.Report
				r := newReports(func(report client.Report) { taken = append(taken, report) })
				for _, report := range slices.Concat(tt.before, slices.Repeat([]client.Report{degraded("often")}, reportBurst)) {
					r.add(report)
				}
				taken = nil
				for _, report := range tt.late {
					r.add(report)
				}
				if got := fmt.Sprint(taken); got != tt.atOnce {
					t.Errorf("at once %s, want %s", got, tt.atOnce)
				}
				taken = nil
				time.Sleep(reportInterval)
				synctest.Wait()
				if got := fmt.Sprint(taken); got != tt.then {
					t.Errorf("then %s, want %s", got, tt.then)
				}
				taken = nil
				r.add(degraded("c"))
				r.add(degraded("d"))
				r.end()
				time.Sleep(2 * reportInterval)
				synctest.Wait()
				if got := fmt.Sprint(taken); got != "[]" {
					t.Errorf("%s was handed on after the end", got)
				}
			})
		})
	}
}
