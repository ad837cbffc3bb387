package nginx

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/sdk/client"
)

// testDeath kills nginx: no client is refused, and a new one answers.
func (f *fixture) testDeath(t *testing.T, c *component) {
	master := func() int {
		raw, err := os.ReadFile(filepath.Join(c.run, "nginx", "nginx.pid"))
		if err != nil {
			return 0
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
		return pid
	}
	before := master()
	if before == 0 {
		t.Fatal("nginx has no pid file")
	}
	must(t, unix.Kill(before, unix.SIGKILL))
	if status, body, err := c.get("http://a.test/"); err != nil || status != http.StatusNotFound && status != http.StatusOK {
		t.Errorf("%d %q %v", status, body, err)
	}
	within(t, func() bool { now := master(); return now != 0 && now != before && unix.Kill(now, 0) == nil },
		func() string { return "nginx was not started again" })
	if got := c.plugin.metrics.deaths.Load(); got != 1 {
		t.Errorf("%d deaths are counted", got)
	}
	f.ingress(t, "after", "after.test", "a", nil)
	c.wants("http://after.test/", http.StatusOK, "a1")
}

// testNoNginx starts the component on a host without nginx, and installs it.
func (f *fixture) testNoNginx(t *testing.T) {
	path := filepath.Join(t.TempDir(), "opt", "nginx")
	c := f.run(t, "127.0.9.3", fmt.Sprintf(`{"executable": %q}`, path))
	c.await(func(r client.Report) bool {
		d, is := r.(client.Degraded)
		return is && strings.Contains(d.Reason, path) && strings.Contains(d.Reason, "apt-get install nginx-light")
	})
	must(t, os.Mkdir(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path+".new", []byte("#!/bin/sh\necho 'nginx version: nginx/1.14.0' >&2\n"), 0o755)) //nolint:gosec // it is executed
	must(t, os.Rename(path+".new", path))
	c.await(func(r client.Report) bool {
		d, is := r.(client.Degraded)
		return is && strings.Contains(d.Reason, "too old")
	})
	found, _, err := find(t.Context(), candidates(""))
	must(t, err)
	must(t, os.Symlink(found.path, path+".new"))
	must(t, os.Rename(path+".new", path))
	c.ready()
	c.wants("http://absent.test/", http.StatusNotFound, "")
}

// testHostPorts has somebody hold a port of the node's, and let it go.
func (f *fixture) testHostPorts(t *testing.T) {
	listener := netListen{}.listen(t, nodeIP+":80")
	c := f.run(t, "127.0.9.4", `{"hostPorts": true}`)
	c.await(func(r client.Report) bool {
		d, is := r.(client.Degraded)
		return is && strings.Contains(d.Reason, nodeIP+":80") && strings.Contains(d.Reason, "ss -ltnp")
	})
	c.wants("http://absent.test/", http.StatusNotFound, "") // by the gateway
	must(t, listener.Close())
	c.ready()
	response, err := http.Get("http://" + nodeIP + "/") //nolint:noctx // nothing can hang here
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusNotFound {
		t.Errorf("the node's port 80 is answered %s", response.Status)
	}
}
