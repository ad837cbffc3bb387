package nginx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// statusSocket is where nginx answers for itself, in the run directory.
const statusSocket = "status.sock"

const (
	// askInterval is how often nginx is asked whether it has taken a configuration up:
	// it tells nobody.
	askInterval = 15 * time.Millisecond
	// takeUpTimeout bounds how long that may take.
	takeUpTimeout = time.Minute
	// minDelay and maxDelay bound the pauses before an nginx that died is started again;
	// they double as long as it does not live for steadyAfter. Meanwhile clients wait in
	// the sockets' queues.
	minDelay, maxDelay = 50 * time.Millisecond, 10 * time.Second
	steadyAfter        = 10 * time.Second
	// maxLines is how many lines of nginx's logs may wait to be written.
	maxLines = 4096
)

// keeper keeps nginx running, from the first configuration on.
type keeper struct {
	launcher *launcher
	conf     string
	log      hclog.Logger
	access   hclog.Logger
	// down is called when nginx died, with why, and with nil when it runs again.
	down    func(error)
	metrics *metrics

	client *http.Client

	lines   chan logLine
	dropped atomic.Int64

	mu      sync.Mutex
	now     *process // nil when there is none
	refused string   // what nginx said last against a configuration that it was told to read
}

func newKeeper(l *launcher, conf string, log hclog.Logger, m *metrics, down func(error)) *keeper {
	socket := filepath.Join(l.runDir, statusSocket)
	return &keeper{launcher: l, conf: conf, log: log, access: log.Named("access"), lines: make(chan logLine, maxLines), down: down, metrics: m,
		client: &http.Client{Timeout: time.Second, Transport: &http.Transport{
			// A worker keeps a connection as long as it lives: an answer would be an old one's.
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		}}}
}

// run starts nginx, and starts it again when it dies, until ctx ends; then it stops it. It
// returns early, with the reason, when the executable is gone.
func (k *keeper) run(ctx context.Context) error {
	var stopping, writing sync.WaitGroup
	writing.Go(k.write)
	defer writing.Wait()
	defer close(k.lines) // nobody tells any more: all that were started have stopped
	defer stopping.Wait()
	delay := minDelay
	for {
		p, err := k.launcher.start(k.conf, k.onError, k.onAccess)
		if err != nil && errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err == nil {
			k.set(p)
			k.down(nil)
			since := time.Now()
			select {
			case <-ctx.Done():
				k.set(nil)
				p.stop()
				return nil
			case <-p.exited:
			}
			k.set(nil)
			stopping.Go(func() { p.stop() }) // its workers
			err = p.err
			if err == nil {
				err = errors.New("somebody stopped it")
			}
			if time.Since(since) > steadyAfter {
				delay = minDelay
			}
		}
		k.metrics.deaths.Add(1)
		if ctx.Err() != nil {
			return nil
		}
		k.down(fmt.Errorf("nginx ended (%w); it is started again", err))
		k.log.Error("nginx ended, starting it again", "err", err, "after", delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
		delay = min(2*delay, maxDelay)
	}
}

func (k *keeper) set(p *process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = p
}

// reload has nginx read its configuration again, and returns when new workers answer by it.
// Without an nginx it waits for the next, which reads it anyway.
func (k *keeper) reload(ctx context.Context, generation string) error {
	k.mu.Lock()
	p := k.now
	k.refused = ""
	k.mu.Unlock()
	if p != nil {
		if err := p.reload(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	return k.taken(ctx, generation)
}

// taken waits until nginx answers by a generation.
func (k *keeper) taken(ctx context.Context, generation string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, takeUpTimeout,
		fmt.Errorf("nginx did not take its configuration up within %s", takeUpTimeout))
	defer cancel()
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	for {
		if text, err := k.ask(ctx, "/generation"); err == nil && strings.TrimSpace(text) == generation {
			return nil
		}
		k.mu.Lock()
		refused := k.refused
		k.mu.Unlock()
		if refused != "" {
			return fmt.Errorf("nginx did not take its configuration up: %s", refused)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

// ask asks nginx itself.
func (k *keeper) ask(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nginx"+path, nil)
	if err != nil {
		return "", err
	}
	response, err := k.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("nginx answers %s", response.Status)
	}
	return string(body), err
}

// logLine is a line of nginx's.
type logLine struct {
	log   hclog.Logger
	level hclog.Level
	text  string
}

// tell hands a line on. k3m slows down a component that writes more than a megabyte a second,
// and nginx must not wait for that: what is too much is dropped, and counted.
func (k *keeper) tell(l logLine) {
	select {
	case k.lines <- l:
	default:
		k.dropped.Add(1)
	}
}

// write writes the lines until there are no more.
func (k *keeper) write() {
	for l := range k.lines {
		l.log.Log(l.level, l.text)
		if n := k.dropped.Swap(0); n > 0 {
			k.log.Warn("nginx logs more than can be written", "dropped", n)
		}
	}
}

// onError takes a line of the error log.
func (k *keeper) onError(line string) {
	level, text := parseLine(line)
	if level == hclog.Error && strings.Contains(line, "[emerg]") {
		k.mu.Lock()
		k.refused = text
		k.mu.Unlock()
	}
	k.tell(logLine{k.log, level, text})
}

// onAccess takes a line of the access log.
func (k *keeper) onAccess(line string) { k.tell(logLine{k.access, hclog.Info, line}) }
