package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/k3m-io/k3m/test/images/echo/answer"
)

// ask is one request and what must come of it.
type ask struct {
	// url holds the name and the path: "http://a.example/b".
	url string
	// backend is who must answer (see backends_test.go); with it the status is 200.
	backend string
	// status is what must be answered instead, by the ingress itself.
	status int
	// method is GET if empty.
	method string
	header map[string]string
	// also, if not nil, looks at the answer of the backend.
	also func(answer.Answer) error
}

func (a ask) String() string {
	return strings.TrimSpace(a.method + " " + a.url)
}

// become asks all, again and again, until one round has every answer that is wanted. A round
// is a whole one, so that nothing passes for refused that is only not known yet.
func (s *scene) become(asks ...ask) {
	s.Helper()
	client := &http.Client{Transport: s.web, Timeout: 5 * time.Second, CheckRedirect: noRedirects}
	var wrong []error
	err := keepTrying(within(s.T, patience), func(ctx context.Context) error {
		s.web.CloseIdleConnections() // a connection stays with whom it was made to
		var now []error
		for _, a := range asks {
			if err := a.try(ctx, client); err != nil {
				now = append(now, fmt.Errorf("%s: %w", a, err))
			}
		}
		if ctx.Err() == nil || wrong == nil { // not a round that was cut short
			wrong = now
		}
		return errors.Join(now...)
	})
	for _, w := range wrong {
		if err != nil {
			s.Error(w)
		}
	}
}

func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func (a ask) try(ctx context.Context, client *http.Client) error {
	resp, text, err := send(ctx, client, a.method, a.url, a.header)
	if err != nil {
		return err
	}
	if a.status != 0 {
		if resp.StatusCode != a.status {
			return fmt.Errorf("the status is %d, not %d: %.200s", resp.StatusCode, a.status, text)
		}
		return nil
	}
	got, err := read(resp, text)
	if err != nil {
		return err
	}
	if who := backendOf(got.Port); who != a.backend {
		return fmt.Errorf("backend %s answers, not %s", who, a.backend)
	}
	if a.also != nil {
		return a.also(got)
	}
	return nil
}

func send(ctx context.Context, client *http.Client, method, url string, header map[string]string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	text, err := body(resp)
	return resp, text, err
}

// read reads the answer of a backend.
func read(resp *http.Response, text string) (answer.Answer, error) {
	var got answer.Answer
	if resp.StatusCode != http.StatusOK {
		return got, fmt.Errorf("the status is %d: %.200s", resp.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		return got, fmt.Errorf("no backend answers, but %.200q", text)
	}
	return got, nil
}

// asking is a client that asks the same again and again.
type asking struct {
	stop func() answers
}

type answers struct {
	asked    int
	failures []string
	longest  time.Duration // between two good answers
}

// askers is how many clients ask at once; half of them with a new connection each time.
const askers = 4

// keepAsking asks for a URL, over new connections and over kept ones, until the test ends or stop is
// called. All but a 200 is a failure.
func (s *scene) keepAsking(url string) *asking {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	var (
		mu   sync.Mutex
		sum  answers
		last = time.Now()
		all  sync.WaitGroup
	)
	for n := range askers {
		transport := s.outside.Transport(s.address())
		transport.DisableKeepAlives = n%2 == 0
		client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
		all.Go(func() {
			defer transport.CloseIdleConnections()
			for ctx.Err() == nil {
				// The request that is under way at the end still gets its answer.
				_, err := get(context.WithoutCancel(ctx), client, url)
				mu.Lock()
				sum.asked++
				if err != nil {
					sum.failures = append(sum.failures, time.Now().Format("05.000 ")+err.Error())
				} else {
					sum.longest = max(sum.longest, time.Since(last))
					last = time.Now()
				}
				mu.Unlock()
				select {
				case <-time.After(5 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	a := &asking{stop: sync.OnceValue(func() answers { cancel(); all.Wait(); return sum })}
	s.Cleanup(func() { a.stop() })
	return a
}

func get(ctx context.Context, client *http.Client, url string) (answer.Answer, error) {
	resp, text, err := send(ctx, client, http.MethodGet, url, nil)
	if err != nil {
		return answer.Answer{}, err
	}
	return read(resp, text)
}

// none fails the test if a request failed, or hardly any was made.
func (a answers) none(s *scene, during string) {
	s.Helper()
	if len(a.failures) > 0 {
		s.Errorf("%d of %d requests failed during %s: %.2000s", len(a.failures), a.asked, during, strings.Join(a.failures, "\n"))
	}
	if a.asked < 20 {
		s.Errorf("only %d requests were made during %s", a.asked, during)
	}
	s.Logf("%d requests during %s, at most %s between two answers", a.asked, during, a.longest.Round(time.Millisecond))
}
