package httpload

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	var asked atomic.Uint64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	for name, rate := range map[string]int{"as fast as answers come": 0, "at a rate": 200} {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			r, err := Run(t.Context(), Load{URL: server.URL, Transport: &http.Transport{}, Rate: rate, For: 500 * time.Millisecond, Clients: 4})
			if err != nil {
				t.Fatal(err)
			}
			if r.Requests != asked.Load() || r.Failed != r.Requests/2 || r.Requests == 0 {
				t.Errorf("of %d requests: %+v", asked.Load(), r)
			}
			if rate > 0 && r.Requests != uint64(rate/2) {
				t.Errorf("%d requests, wanted %d", r.Requests, rate/2)
			}
			if len(r.Errors) != 1 || r.P99 < r.P50 || r.Max < r.P99 || r.P50 == 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}
