package traefik

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/config/static"
	"github.com/traefik/traefik/v2/pkg/server"
	tcprouter "github.com/traefik/traefik/v2/pkg/server/router/tcp"
	"github.com/traefik/traefik/v2/pkg/types"
)

// bindAgain is how often a port of the node that is taken is tried again: the kernel tells nobody when one is free.
const bindAgain = 2 * time.Second

// hostListeners are entry points on the node's own addresses, whose ports may be taken.
//
//	waiting ── bind ── listening ── stop
type hostListeners struct {
	all      []listener
	resolver *types.HostResolverConfig
	// taken is told, after each change, in one sentence which ports are taken; empty if none is.
	taken func(string)

	mu        sync.Mutex
	listening map[string]*server.TCPEntryPoint
	routers   map[string]*tcprouter.Router // the newest
}

// run binds what can be bound, and again what can't, until ctx ends; then it stops all.
func (h *hostListeners) run(ctx context.Context) {
	h.listening = map[string]*server.TCPEntryPoint{}
	var accepting sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for len(h.all) > 0 {
		select {
		case <-ctx.Done():
			h.stop()
			accepting.Wait()
			return
		case <-timer.C:
		}
		if missing := h.bind(ctx, &accepting); missing != "" {
			h.taken(missing)
			timer.Reset(bindAgain)
		} else {
			h.taken("")
		}
	}
}

// bind binds what is not bound yet and returns which ports are taken.
func (h *hostListeners) bind(ctx context.Context, accepting *sync.WaitGroup) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.all {
		if h.listening[l.name] != nil {
			continue
		}
		ep, err := server.NewTCPEntryPoint(ctx, l.config, h.resolver)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Sprintf("hostPorts: %s is held by another process of this host (`ss -ltnp` names it); end it, or choose other ports", l.config.Address)
		}
		if err != nil {
			return fmt.Sprintf("hostPorts: %v", err)
		}
		if r := h.routers[l.name]; r != nil {
			ep.SwitchRouter(r)
		}
		h.listening[l.name] = ep
		accepting.Go(func() { ep.Start(ctx) })
	}
	return ""
}

// swap gives the listeners their new routers.
func (h *hostListeners) swap(routers map[string]*tcprouter.Router) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.routers = routers
	for name, ep := range h.listening {
		if r := routers[name]; r != nil {
			ep.SwitchRouter(r)
		}
	}
}

func (h *hostListeners) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	server.TCPEntryPoints(h.listening).Stop()
}

// mirror returns a configuration in which the routers of an entry point are those of the listeners that stand for it too.
func mirror(conf dynamic.Configuration, listeners []listener) dynamic.Configuration {
	if len(listeners) == 0 {
		return conf
	}
	more := map[string][]string{}
	for _, l := range listeners {
		more[l.of] = append(more[l.of], l.name)
	}
	extend := func(entryPoints []string) []string {
		all := slices.Clone(entryPoints)
		for _, name := range entryPoints {
			all = append(all, more[name]...)
		}
		return all
	}
	if conf.HTTP != nil {
		http := *conf.HTTP
		http.Routers = maps.Clone(conf.HTTP.Routers)
		for name, r := range http.Routers {
			r = r.DeepCopy()
			r.EntryPoints = extend(r.EntryPoints)
			http.Routers[name] = r
		}
		conf.HTTP = &http
	}
	if conf.TCP != nil {
		tcp := *conf.TCP
		tcp.Routers = maps.Clone(conf.TCP.Routers)
		for name, r := range tcp.Routers {
			r = r.DeepCopy()
			r.EntryPoints = extend(r.EntryPoints)
			tcp.Routers[name] = r
		}
		conf.TCP = &tcp
	}
	if conf.UDP != nil {
		udp := *conf.UDP
		udp.Routers = maps.Clone(conf.UDP.Routers)
		for name, r := range udp.Routers {
			r = r.DeepCopy()
			r.EntryPoints = extend(r.EntryPoints)
			udp.Routers[name] = r
		}
		conf.UDP = &udp
	}
	return conf
}

// certain are the entry points that must be there: all but those on addresses whose ports may be taken.
func certain(s *static.Configuration, listeners []listener) static.EntryPoints {
	all := maps.Clone(s.EntryPoints)
	for _, l := range listeners {
		if l.host {
			delete(all, l.name)
		}
	}
	return all
}
