package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/k3m-io/k3m/test/harness"
)

// crashRounds is how often everything is killed in the middle of a storm of writes;
// K3M_CRASHES says otherwise.
const crashRounds = 5

// dbSize is the file system that the datastore of the test is on.
const dbSize = 128 << 20

// TestDatastoreCare mistreats the datastore of one node: crashes in a storm of writes, a full disk, a
// damaged file, a restore.
func TestDatastoreCare(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t, "care")
	db := filepath.Join(h.DataDir, "server", "db")
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Command(within(t, 10*time.Second), "/bin/mount", "-t", "tmpfs", "-o", "mode=0700,size="+strconv.Itoa(dbSize), "tmpfs", db).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { // before k3m uninstall, which would find it busy
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if out, err := h.Command(ctx, "/bin/umount", "-l", db).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	manifest := filepath.Join(h.DataDir, "server", "manifests", "app", "first.yaml")
	if err := os.MkdirAll(filepath.Dir(manifest), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, manifest, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-file}\ndata: {a: b}\n")
	node := h.Serve(t, "--snapshot-schedule=@every 2s", "--snapshot-retention=2")
	t.Cleanup(func() {
		if node.Running() {
			node.Stop(t)
		}
	})
	c := &care{T: t, whole: t, h: h, node: node, file: h.Path(filepath.Join(db, "state.db"))}
	if _, err := node.WaitReady(within(t, 60*time.Second)); err != nil {
		t.Fatal(err)
	}
	c.connect()
	for _, step := range []struct {
		name string
		do   func(*care)
	}{
		{"manifests", func(c *care) { c.manifests(manifest) }},
		{"scheduled snapshots", (*care).scheduled},
		{"crashes in a storm", (*care).crashes},
		{"a full disk", (*care).fullDisk},
		{"a restore", (*care).restore},
		{"a damaged file", (*care).damage},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			outer := c.T
			defer func() { c.T = outer }()
			c.T = t
			step.do(c)
		})
		if !ok {
			t.Fatal("the next step builds on this one")
		}
	}
}

// care is the node whose datastore is mistreated.
type care struct {
	*testing.T            // the step's
	whole      *testing.T // what the node lives as long as
	h          *harness.Host
	node       *harness.Node
	client     *kubernetes.Clientset
	file       string // the datastore, seen from outside
	// acknowledged are the names of all ConfigMaps that the API said it had made.
	acknowledged []string
}

func (c *care) connect() {
	c.Helper()
	if _, err := c.node.WaitAPI(within(c.T, 30*time.Second)); err != nil {
		c.Fatal(err)
	}
	config, err := c.node.Config()
	if err != nil {
		c.Fatal(err)
	}
	config.QPS = -1
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		c.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// create makes a ConfigMap of some size.
func (c *care) create(ctx context.Context, name string) error {
	_, err := c.client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"x": strings.Repeat("x", 2000)},
	}, metav1.CreateOptions{})
	return err
}

// there are the names of all ConfigMaps, straight from the datastore.
func (c *care) there() map[string]bool {
	c.Helper()
	list, err := c.client.CoreV1().ConfigMaps("default").List(within(c.T, 30*time.Second), metav1.ListOptions{})
	if err != nil {
		c.Fatal(err)
	}
	names := map[string]bool{}
	for _, cm := range list.Items {
		names[cm.Name] = true
	}
	return names
}

func (c *care) nothingLost() {
	c.Helper()
	there := c.there()
	var lost []string
	for _, name := range c.acknowledged {
		if !there[name] {
			lost = append(lost, name)
		}
	}
	if len(lost) > 0 {
		c.Fatalf("%d of %d acknowledged writes are lost: %v", len(lost), len(c.acknowledged), lost[:min(len(lost), 10)])
	}
}

// manifests sees a file that was there before the first start, one that is wrong, and the end of both.
func (c *care) manifests(file string) {
	maps := c.client.CoreV1().ConfigMaps("default")
	if _, err := eventually(within(c.T, 20*time.Second), func(ctx context.Context) (any, error) {
		return maps.Get(ctx, "from-file", metav1.GetOptions{})
	}); err != nil {
		c.Fatal(err)
	}
	broken := filepath.Join(filepath.Dir(file), "broken.yaml")
	writeFile(c.T, broken, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n  name: y\n")
	if _, err := eventually(within(c.T, 20*time.Second), func(ctx context.Context) (any, error) {
		out, code := command(c.T, c.h, "status")
		if code != 1 || !strings.Contains(out, "app/broken.yaml:5: ") || !strings.Contains(out, "mend the file") {
			return nil, fmt.Errorf("k3m status: exit code %d: %s", code, out)
		}
		return nil, nil
	}); err != nil {
		c.Fatal(err)
	}
	out, err := c.node.Kubectl(within(c.T, 20*time.Second), "get", "manifests")
	if err != nil || !strings.Contains(out, "Failed") || !strings.Contains(out, "Applied") {
		c.Errorf("kubectl get manifests: %v: %s", err, out)
	}
	for _, f := range []string{broken, file} {
		if err := os.Remove(f); err != nil {
			c.Fatal(err)
		}
	}
	if _, err := eventually(within(c.T, 20*time.Second), func(ctx context.Context) (any, error) {
		if _, err := maps.Get(ctx, "from-file", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("the object of a file that has gone: %w", err)
		}
		return nil, nil
	}); err != nil {
		c.Fatal(err)
	}
}

type snapshotInfo struct {
	Name, Reason, File string
	Created            time.Time
	Revision           int64
}

func (c *care) snapshots() []snapshotInfo {
	c.Helper()
	var all []snapshotInfo
	if err := json.Unmarshal([]byte(good(c.T, c.h, []string{"snapshot", "list", "-o", "json"})), &all); err != nil {
		c.Fatal(err)
	}
	return all
}

// scheduled waits until the schedule has made a third snapshot, and sees that two are kept.
func (c *care) scheduled() {
	first := ""
	_, err := eventually(within(c.T, 60*time.Second), func(ctx context.Context) (any, error) {
		all := c.snapshots()
		switch {
		case len(all) == 0:
			return nil, errors.New("there is none")
		case first == "":
			first = all[0].Name
		case len(all) == 2 && all[0].Name != first && all[1].Reason == "scheduled":
			return nil, nil
		}
		return nil, fmt.Errorf("there are %+v", all)
	})
	if err != nil {
		c.Fatal(err)
	}
	good(c.T, c.h, []string{"snapshot", "list"}, "NAME", "scheduled-care-")
	good(c.T, c.h, []string{"snapshot", "check"}, "the datastore is sound")
	// From here on there are none that come by themselves.
	c.node.Stop(c.T)
	c.node = c.h.Serve(c.whole, "--snapshot-schedule=off")
	c.connect()
}

// crashes kills every process of the host at once, again and again.
func (c *care) crashes() {
	rounds := crashRounds
	if text := os.Getenv("K3M_CRASHES"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			c.Fatal(err)
		}
	}
	var back []time.Duration
	for round := range rounds {
		// At least so many writes, and then as many more as come before the end.
		c.storm(round, 100+37*(round%7))
		start := time.Now()
		c.node.Restart(c.T)
		c.connect()
		back = append(back, time.Since(start))
		c.nothingLost()
	}
	good(c.T, c.h, []string{"snapshot", "check"}, "the datastore is sound")
	if !strings.Contains(c.node.Logs(), "it was checked and is sound") {
		c.Error("the log does not say that the datastore was checked after the crash")
	}
	c.Logf("%d crashes, %d acknowledged writes, none lost; API back: %s", rounds, len(c.acknowledged), spread(back))
}

// storm writes from many sides and kills everything in the middle of it.
func (c *care) storm(round, enough int) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 60*time.Second)
	defer cancel()
	var mu sync.Mutex
	var writers sync.WaitGroup
	before, reached := len(c.acknowledged), make(chan struct{})
	for w := range 8 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("storm-%d-%d-%d", round, w, i)
				if err := c.create(ctx, name); err != nil {
					return // it is dead
				}
				mu.Lock()
				c.acknowledged = append(c.acknowledged, name)
				if len(c.acknowledged) == before+enough {
					close(reached)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-reached:
	case <-ctx.Done():
		c.Fatalf("only %d writes: %v", len(c.acknowledged)-before, context.Cause(ctx))
	}
	procs, err := c.h.Processes()
	if err != nil {
		c.Fatal(err)
	}
	c.node.Kill9()
	for _, p := range procs {
		if p.Outer != 0 {
			_ = unix.Kill(p.Outer, unix.SIGKILL) // some end with the core
		}
	}
	writers.Wait()
}

// restore goes back to a snapshot.
func (c *care) restore() {
	var saved snapshotInfo
	if err := json.Unmarshal([]byte(good(c.T, c.h, []string{"snapshot", "save", "--name=by-hand", "-o", "json"})), &saved); err != nil {
		c.Fatal(err)
	}
	if err := c.create(within(c.T, 10*time.Second), "after-the-snapshot"); err != nil {
		c.Fatal(err)
	}
	bad(c.T, c.h, 1, []string{"snapshot", "restore", saved.Name}, "another k3m server", "stop it first")
	c.node.Stop(c.T)
	bad(c.T, c.h, 1, []string{"snapshot", "restore", "nonesuch"}, "no such snapshot: nonesuch")
	good(c.T, c.h, []string{"snapshot", "restore", saved.Name}, "restored by-hand-care-", "now start k3m")
	c.node.Restart(c.T)
	c.connect()
	c.nothingLost()
	if c.there()["after-the-snapshot"] {
		c.Error("what came after the snapshot is there")
	}
	if err := c.create(within(c.T, 10*time.Second), "after-the-restore"); err != nil {
		c.Error(err)
	}
	if _, err := c.node.WaitReady(within(c.T, 60*time.Second)); err != nil {
		c.Error(err)
	}
	good(c.T, c.h, []string{"snapshot", "save"}, "saved on-demand-care-") // for the next step, before the damage
}
