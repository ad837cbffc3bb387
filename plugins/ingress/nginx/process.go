package nginx

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quitPatience is how long requests under way may take when the component stops; the
	// host waits a little longer before it forces.
	quitPatience = 4 * time.Second
	// testTimeout bounds nginx -t; ten thousand hosts take it some seconds.
	testTimeout = time.Minute
	// maxLine bounds a line of nginx's output, in bytes.
	maxLine = 16 << 10
)

// process is a running nginx: its master, and the workers that are the master's children
// and of its process group.
type process struct {
	cmd *exec.Cmd
	// exited is closed when the master has ended; err then says how, nil for well.
	exited chan struct{}
	err    error
	// silent is closed when the last worker has ended, too.
	silent chan struct{}
}

// launcher says how nginx is run.
type launcher struct {
	nginx   executable
	sockets *sockets
	runDir  string // where it works
}

// command is nginx with its sockets.
func (l *launcher) command(ctx context.Context, conf string, args ...string) *exec.Cmd {
	// -e: what it has to say before it has read of its error log.
	args = append([]string{"-e", "stderr", "-p", l.runDir, "-c", conf}, args...)
	if !l.nginx.version.AtLeast(1, 19, 5) {
		args = args[2:] // it has no -e
	}
	cmd := exec.CommandContext(ctx, l.nginx.path, args...)
	cmd.Dir = l.runDir
	cmd.ExtraFiles = l.sockets.files
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", l.sockets.environment(3)}
	return cmd
}

// test has nginx judge a configuration. It returns what nginx says against it, as a
// *verdictError, or why nginx could not be asked.
func (l *launcher) test(ctx context.Context, conf string) error {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	cmd := l.command(ctx, conf, "-t", "-q")
	var text bounded
	cmd.Stdout, cmd.Stderr = &text, &text
	var exit *exec.ExitError
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("nginx -t: %w", context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return newVerdict(text.String())
	}
	return fmt.Errorf("nginx -t: %w", err)
}

// start starts nginx. onLine is called with each line of its output: from its error log
// (and before it has read of that) and from its access log.
func (l *launcher) start(conf string, onError, onAccess func(string)) (*process, error) {
	// The socket of an nginx that was killed.
	if err := os.Remove(filepath.Join(l.runDir, statusSocket)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	p := &process{exited: make(chan struct{}), silent: make(chan struct{})}
	p.cmd = l.command(context.Background(), conf)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	started := make(chan error, 1)
	go func() {
		defer close(p.silent)
		// This thread's: the parent of Pdeathsig, and what nginx's capabilities come from.
		// It has the sockets and needs none. The thread ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
			started <- fmt.Errorf("start nginx: drop its capabilities: %w", err)
			return
		}
		if err := p.cmd.Start(); err != nil {
			started <- fmt.Errorf("start nginx: %w", err)
			return
		}
		started <- nil
		var reading sync.WaitGroup
		reading.Go(func() { lines(stderr, onError); _ = stderr.Close() })
		reading.Go(func() { lines(stdout, onAccess); _ = stdout.Close() })
		// The master's own end, not that of the pipes, which workers hold too.
		state, err := p.cmd.Process.Wait()
		if err == nil && !state.Success() {
			err = errors.New(state.String())
		}
		p.err = err
		// Workers do not notice that their master is gone, and would go on accepting.
		_ = unix.Kill(-p.cmd.Process.Pid, unix.SIGQUIT)
		close(p.exited)
		reading.Wait()
	}()
	return p, <-started
}

// reload tells the master to read the configuration again.
func (p *process) reload() error {
	if err := p.cmd.Process.Signal(unix.SIGHUP); err != nil {
		return fmt.Errorf("reload nginx: %w", err)
	}
	return nil
}

// stop lets nginx end what is under way, for quitPatience, and then ends it all the same.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(unix.SIGQUIT)
	// The workers, and not the master alone: one that died left them behind.
	timer := time.NewTimer(quitPatience)
	defer timer.Stop()
	for _, harder := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		select {
		case <-p.silent:
			return
		case <-timer.C:
		}
		_ = unix.Kill(-p.cmd.Process.Pid, harder)
		timer.Reset(time.Second)
	}
	<-p.silent
}

// lines calls on with each line until the end. A line that is too long comes in pieces.
func lines(from io.Reader, on func(string)) {
	reader := bufio.NewReaderSize(from, maxLine)
	for {
		line, err := reader.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			on(text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
