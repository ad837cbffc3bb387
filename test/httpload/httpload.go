// Package httpload asks an HTTP server as fast as it answers, or at a fixed rate, and sums up
// how long its answers take. It is vegeta, pointed at a test's network.
package httpload

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// Load says what is asked.
type Load struct {
	// URL is asked for with GET, by way of Transport.
	URL       string
	Transport *http.Transport
	// Rate is in requests a second. With it a time is from the moment at which a request was
	// due as long as Clients are free; 0 asks as fast as the answers come.
	Rate int
	// For is how long, Clients how many ask at once (at most, with a rate).
	For     time.Duration
	Clients int
}

// Result is what came of it.
type Result struct {
	// Rate is that of the good answers, in requests a second.
	Rate float64 `json:"requestsPerSecond"`
	// Requests counts all, Failed those without an answer or with another than 200.
	Requests uint64        `json:"requests"`
	Failed   uint64        `json:"failed"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
	// Errors are the first few different ones.
	Errors []string `json:"errors,omitempty"`
}

// maxErrors bounds Result.Errors.
const maxErrors = 5

// Run asks until the time is over or ctx ends, and waits for the answers.
func Run(ctx context.Context, l Load) (Result, error) {
	transport := l.Transport.Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = l.Clients, l.Clients
	defer transport.CloseIdleConnections()
	attacker := vegeta.NewAttacker(
		vegeta.Client(&http.Client{Transport: transport, Timeout: 10 * time.Second}),
		vegeta.Workers(uint64(min(l.Clients, 16))), vegeta.MaxWorkers(uint64(l.Clients)))
	target := vegeta.NewStaticTargeter(vegeta.Target{Method: http.MethodGet, URL: l.URL})
	stopped := context.AfterFunc(ctx, func() { attacker.Stop() })
	defer stopped()
	var sum vegeta.Metrics
	for answer := range attacker.Attack(target, vegeta.Rate{Freq: l.Rate, Per: time.Second}, l.For, "") {
		sum.Add(answer)
	}
	sum.Close()
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("ask %s: %w", l.URL, context.Cause(ctx))
	}
	r := Result{
		Rate: sum.Throughput, Requests: sum.Requests, Failed: sum.Requests - uint64(sum.StatusCodes["200"]),
		P50: sum.Latencies.P50, P99: sum.Latencies.P99, Max: sum.Latencies.Max,
		Errors: sum.Errors[:min(len(sum.Errors), maxErrors)],
	}
	slices.Sort(r.Errors)
	return r, nil
}
