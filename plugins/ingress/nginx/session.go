package nginx

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/k3m-io/k3m/plugins/ingress/kit"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/render"
	"github.com/k3m-io/k3m/plugins/ingress/nginx/translate"
	"github.com/k3m-io/k3m/sdk"
)

// errAgain ends a session that is to be followed by another.
var errAgain = errors.New("start nginx anew")

// rebindInterval is how often an address of the node is tried again that somebody else
// holds: the kernel tells nobody when it becomes free.
const rebindInterval = 5 * time.Second

// dnsPort is the cluster's DNS servers'.
const dnsPort = 53

// session is the component from the finding of an nginx to its end. The next begins when
// nginx was removed from the host, or when an address of the node became free.
type session struct {
	cfg       config
	facts     sdk.Facts
	host      *sdk.Host
	exposure  kit.Exposure
	watches   *watches
	published *kit.Published
	recorder  *kit.Recorder
	statuses  *kit.StatusWriter
	health    *health
	metrics   *metrics
}

// run runs one session. It returns errAgain for the next, and nil when ctx ended.
func (s *session) run(ctx context.Context) error {
	log := s.host.Logger()
	nginx, err := await(ctx, log, candidates(s.cfg.Executable), func(why error) {
		s.host.Serve() // nobody answers
		s.health.set(partExecutable, why.Error())
		log.Error("there is no nginx to run", "err", why)
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.health.set(partExecutable, "")
	log.Info("found nginx", "path", nginx.path,
		"version", fmt.Sprintf("%d.%d.%d", nginx.version.Major, nginx.version.Minor, nginx.version.Patch))

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sockets, taken, err := s.listen()
	if err != nil {
		return err
	}
	defer sockets.close()
	var rebinding sync.WaitGroup
	defer rebinding.Wait()
	defer cancel(nil)
	if len(taken) > 0 {
		rebinding.Go(func() {
			if free(ctx, taken) {
				cancel(errAgain)
			}
		})
	}
	c, err := s.controller(nginx, sockets)
	if err != nil {
		return err
	}
	if !s.watches.synced(ctx.Done()) || !s.published.Synced(ctx.Done()) {
		return nil
	}
	// Nobody new comes while nginx ends what it has begun.
	defer context.AfterFunc(ctx, func() { s.host.Serve() })()
	err = c.run(ctx)
	s.metrics.ask.Store(nil)
	if errors.Is(err, os.ErrNotExist) {
		return errAgain // nginx was removed
	}
	return err
}

// listen opens the pod gateways' ports, and with hostPorts those of the node's addresses,
// as far as they are free; taken are the others.
func (s *session) listen() (open *sockets, taken []netip.AddrPort, err error) {
	var http, https []netip.AddrPort
	for _, gateway := range s.facts.PodGateways {
		http = append(http, netip.AddrPortFrom(gateway, internalHTTP))
		https = append(https, netip.AddrPortFrom(gateway, internalHTTPS))
	}
	ill := ""
	if s.cfg.HostPorts {
		for _, ip := range s.facts.NodeIPs {
			for _, of := range []struct {
				port uint16
				list *[]netip.AddrPort
			}{{s.exposure.HTTP, &http}, {s.exposure.HTTPS, &https}} {
				address := netip.AddrPortFrom(ip, of.port)
				file, err := listenOn(address)
				if err != nil {
					taken = append(taken, address)
					ill = err.Error()
					continue
				}
				_ = file.Close() // it is opened again below, with the others
				*of.list = append(*of.list, address)
			}
		}
	}
	s.health.set(partHostPorts, ill)
	open, err = listen(http, https)
	return open, taken, err
}

// free waits until one of some addresses can be bound; it is false when ctx ended before.
func free(ctx context.Context, taken []netip.AddrPort) bool {
	ticker := time.NewTicker(rebindInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		for _, address := range taken {
			if file, err := listenOn(address); err == nil {
				_ = file.Close()
				return true
			}
		}
	}
}

// ownRunDir is the component's own folder for sockets, which go-plugin is told, too; the
// state directory where there is none.
func ownRunDir(host *sdk.Host) string {
	if dir := os.Getenv("PLUGIN_UNIX_SOCKET_DIR"); filepath.IsAbs(dir) {
		return dir
	}
	return host.StateDir()
}

// controller makes the session's controller.
func (s *session) controller(nginx executable, open *sockets) (*controller, error) {
	log := s.host.Logger()
	runDir := filepath.Join(ownRunDir(s.host), "nginx")
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("make nginx's folder: %w", err)
	}
	store, err := newStore(filepath.Join(s.host.StateDir(), "configuration"))
	if err != nil {
		return nil, err
	}
	certificate, err := selfSign(time.Now())
	if err != nil {
		return nil, err
	}
	launcher := &launcher{nginx: nginx, sockets: open, runDir: runDir}
	keeper := newKeeper(launcher, store.current(), log, s.metrics, func(err error) {
		text := ""
		if err != nil {
			text = err.Error()
		}
		s.health.set(partProcess, text)
	})
	ask := keeper.ask
	s.metrics.ask.Store(&ask)
	env := render.Env{
		Dir: store.dir, RunDir: runDir, HTTP: open.http, HTTPS: open.https, HTTPSPort: s.exposure.HTTPS,
		Status: filepath.Join(runDir, statusSocket), Generation: store.token, ErrorLog: "stderr", Nginx: nginx.version,
		Foreground: true,
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		env.MaxFiles = files.Max
	}
	if s.cfg.AccessLog {
		env.AccessLog = "/dev/stdout" // the component's log
	}
	for _, server := range s.facts.ClusterDNS {
		env.Resolver = append(env.Resolver, netip.AddrPortFrom(server, dnsPort))
	}
	c := &controller{
		builder: &builder{cfg: s.cfg, watches: s.watches, launcher: launcher, store: store, env: env, log: log,
			metrics: s.metrics, selfSigned: certificate, refused: map[types.UID]refusal{},
			cache: translate.NewCache(), seed: maphash.MakeSeed()},
		keeper: keeper, watches: s.watches, published: s.published, recorder: s.recorder, statuses: s.statuses,
		health: s.health, metrics: s.metrics, log: log, exposure: s.exposure,
		serve: func() { s.host.Serve(endpoints(s.facts.PodGateways)...) },
	}
	if s.cfg.HostPorts {
		c.hostAddresses = s.facts.NodeIPs
	}
	return c, nil
}
