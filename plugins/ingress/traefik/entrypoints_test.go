package traefik

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/traefik/traefik/v2/pkg/config/dynamic"
	"github.com/traefik/traefik/v2/pkg/config/static"
)

func TestListenersGetTheRoutersOfTheirEntryPoint(t *testing.T) {
	conf := dynamic.Configuration{
		HTTP: &dynamic.HTTPConfiguration{Routers: map[string]*dynamic.Router{
			"both": {EntryPoints: []string{"web", "websecure"}}, "other": {EntryPoints: []string{"more"}}}},
		TCP: &dynamic.TCPConfiguration{Routers: map[string]*dynamic.TCPRouter{"tcp": {EntryPoints: []string{"web"}}}},
		UDP: &dynamic.UDPConfiguration{Routers: map[string]*dynamic.UDPRouter{"udp": {EntryPoints: []string{"dns"}}}},
	}
	got := mirror(conf, []listener{{name: "web-2", of: "web"}, {name: "dns-3", of: "dns"}})
	for what, is := range map[string]string{
		"web websecure web-2": strings.Join(got.HTTP.Routers["both"].EntryPoints, " "),
		"more":                strings.Join(got.HTTP.Routers["other"].EntryPoints, " "),
		"web web-2":           strings.Join(got.TCP.Routers["tcp"].EntryPoints, " "),
		"dns dns-3":           strings.Join(got.UDP.Routers["udp"].EntryPoints, " "),
		"web websecure":       strings.Join(conf.HTTP.Routers["both"].EntryPoints, " "), // left as it was
	} {
		if is != what {
			t.Errorf("%q, want %q", is, what)
		}
	}
}

// A port that is taken is told, and bound when it is free.
func TestTakenHostPort(t *testing.T) {
	holder, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ep := &static.EntryPoint{Address: holder.Addr().String()}
	ep.SetDefaults()
	told := make(chan string, 10)
	h := &hostListeners{all: []listener{{name: "web-2", of: "web", config: ep, host: true}}, taken: func(which string) { told <- which }}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { h.run(ctx) })
	if which := <-told; !strings.Contains(which, holder.Addr().String()) {
		t.Errorf("told %q, which does not name %s", which, holder.Addr())
	}
	must(t, holder.Close())
	for which := range told {
		if which == "" {
			break
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ep.Address, nil)
	must(t, err)
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound {
		t.Errorf("it answers %s, want that there is no route", answer.Status)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	running.Wait()
}
