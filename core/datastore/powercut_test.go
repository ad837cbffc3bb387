package datastore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/core/datastore"
)

// A file system in memory that keeps apart what was written and what was synced: `fsync` of a file
// makes its content last, `fsync` of a folder its names, and nothing else does.

const block = 4096

// volatileFile is a file of it.
type volatileFile struct {
	fs.Inode
	mu      sync.Mutex
	now     []byte
	durable []byte
	dirty   map[int]bool // blocks of now that are not durable
}

var (
	_ fs.NodeOpener    = (*volatileFile)(nil)
	_ fs.NodeReader    = (*volatileFile)(nil)
	_ fs.NodeWriter    = (*volatileFile)(nil)
	_ fs.NodeFsyncer   = (*volatileFile)(nil)
	_ fs.NodeGetattrer = (*volatileFile)(nil)
	_ fs.NodeSetattrer = (*volatileFile)(nil)
	_ fs.NodeFsyncer   = (*volatileDir)(nil)
	_ fs.NodeCreater   = (*volatileDir)(nil)
	_ fs.NodeMkdirer   = (*volatileDir)(nil)
	_ fs.NodeUnlinker  = (*volatileDir)(nil)
	_ fs.NodeRmdirer   = (*volatileDir)(nil)
	_ fs.NodeRenamer   = (*volatileDir)(nil)
)

func (f *volatileFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (f *volatileFile) Read(_ context.Context, _ fs.FileHandle, into []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at >= int64(len(f.now)) {
		return fuse.ReadResultData(nil), 0
	}
	n := copy(into, f.now[at:])
	return fuse.ReadResultData(into[:n]), 0
}

func (f *volatileFile) Write(_ context.Context, _ fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := int(at) + len(data)
	f.resize(max(end, len(f.now)))
	copy(f.now[at:], data)
	for b := int(at) / block; b*block < end; b++ {
		f.dirty[b] = true
	}
	return uint32(len(data)), 0
}

func (f *volatileFile) resize(size int) {
	for len(f.now) < size {
		f.now = append(f.now, make([]byte, size-len(f.now))...)
	}
	f.now = f.now[:size]
}

func (f *volatileFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.durable = append(f.durable[:0], f.now...)
	clear(f.dirty)
	return 0
}

func (f *volatileFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	out.Mode, out.Size, out.Nlink = 0o600, uint64(len(f.now)), 1
	return 0
}

func (f *volatileFile) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		f.mu.Lock()
		f.resize(int(size))
		f.mu.Unlock()
	}
	return f.Getattr(ctx, h, out)
}

// left is what a power cut leaves: what was synced, and of the rest each block with some
// probability, as disks write what they have in any order.
func (f *volatileFile) left(luck *rand.Rand, survive float64) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := append([]byte(nil), f.durable...)
	for b := range (len(f.now) + block - 1) / block {
		if !f.dirty[b] || luck.Float64() >= survive {
			continue
		}
		end := min((b+1)*block, len(f.now))
		if len(out) < end {
			out = append(out, make([]byte, end-len(out))...)
		}
		copy(out[b*block:end], f.now[b*block:end])
	}
	return out
}

// volatileDir is a folder of it.
type volatileDir struct {
	fs.Inode
	mu      sync.Mutex
	durable map[string]fs.InodeEmbedder
}

func (d *volatileDir) Create(ctx context.Context, name string, _ uint32, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child := d.NewInode(ctx, &volatileFile{dirty: map[int]bool{}}, fs.StableAttr{Mode: syscall.S_IFREG})
	d.AddChild(name, child, true)
	out.Mode = mode
	return child, nil, 0, 0
}

func (d *volatileDir) Mkdir(ctx context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	child := d.NewInode(ctx, &volatileDir{}, fs.StableAttr{Mode: syscall.S_IFDIR})
	d.AddChild(name, child, true)
	return child, 0
}

func (d *volatileDir) Unlink(context.Context, string) syscall.Errno { return 0 } // go-fuse takes it out of the tree
func (d *volatileDir) Rmdir(context.Context, string) syscall.Errno  { return 0 }

func (d *volatileDir) Rename(context.Context, string, fs.InodeEmbedder, string, uint32) syscall.Errno {
	return 0
}

func (d *volatileDir) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = map[string]fs.InodeEmbedder{}
	for name, child := range d.Children() {
		d.durable[name] = child.Operations()
	}
	return 0
}

// write puts what is left of the folder into a real one.
func (d *volatileDir) write(t *testing.T, to string, luck *rand.Rand, survive float64) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, child := range d.durable {
		switch child := child.(type) {
		case *volatileDir:
			child.write(t, filepath.Join(to, name), luck, survive)
		case *volatileFile:
			if err := os.WriteFile(filepath.Join(to, name), child.left(luck, survive), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

const (
	namespaceEnv = "K3M_TEST_NAMESPACE"
	stormEnv     = "K3M_TEST_STORM"
)

// inMountNamespace runs the test again in a process with mounts of its own, which go with it. It is
// true in that process.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceEnv) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: needs root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a mount namespace: %v\n%s", err, out)
	}
	return false
}

// storm creates keys as fast as it can, from several goroutines, and prints each that was
// acknowledged, until it is killed.
func storm(dir string, sync datastore.Sync) error {
	store, err := datastore.Open(context.Background(), datastore.Options{
		File: filepath.Join(dir, "disk", "db", "state.db"), Socket: filepath.Join(dir, "s", "kine.sock"), Sync: sync,
	})
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{store.Endpoint}})
	if err != nil {
		return err
	}
	failed := make(chan error)
	value := strings.Repeat("x", 500)
	for worker := range 4 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/registry/%d/%d", worker, i)
				if _, err := client.Txn(context.Background()).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
					Then(clientv3.OpPut(key, value)).Commit(); err != nil {
					failed <- err
					return
				}
				fmt.Println("acknowledged", key) // one write(2)
			}
		}()
	}
	return <-failed
}

// TestPowerCut cuts the power of a datastore that is written. With full synchronisation nothing that
// was acknowledged is lost; with normal synchronisation, the last of it is, which shows that the test
// would see it. Neither damages the file.
func TestPowerCut(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	for name, c := range map[string]struct {
		sync    datastore.Sync
		survive float64
		lost    bool
	}{
		"full, nothing else survives":        {datastore.SyncFull, 0, false},
		"full, half of the rest survives":    {datastore.SyncFull, 0.5, false},
		"full, most of the rest survives":    {datastore.SyncFull, 0.9, false},
		"normal, nothing else survives":      {datastore.SyncNormal, 0, true},
		"the default, nothing else survives": {"", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			lost := cutPower(t, c.sync, c.survive)
			if c.lost && lost == 0 {
				t.Error("nothing was lost: the file system does not drop what was not synced")
			}
			if !c.lost && lost > 0 {
				t.Errorf("%d acknowledged writes were lost", lost)
			}
		})
	}
}

// cutPower starts a storm, ends it in the middle, and says how many acknowledged writes are missing
// from what the disk kept.
func cutPower(t *testing.T, sync datastore.Sync, survive float64) (lost int) {
	t.Helper()
	dir := t.TempDir()
	disk, left := filepath.Join(dir, "disk"), filepath.Join(dir, "left")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	root := &volatileDir{}
	server, err := fs.Mount(disk, root, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "volatile", MaxWrite: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	}()
	writer := exec.CommandContext(t.Context(), os.Args[0])
	writer.Env = append(os.Environ(), stormEnv+"="+dir+":"+string(sync))
	writer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	luck := rand.New(rand.NewPCG(uint64(survive*100), 1))
	enough := 300 + luck.IntN(600)
	var keys []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if key, ok := strings.CutPrefix(lines.Text(), "acknowledged "); ok {
			keys = append(keys, key)
		} else {
			t.Log(lines.Text())
		}
		if len(keys) == enough {
			// What it acknowledges until it is dead is still read, and must be there.
			if err := writer.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := writer.Wait(); !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if len(keys) < enough {
		t.Fatalf("the storm ended after %d keys: %v", len(keys), exit)
	}
	root.write(t, left, luck, survive)

	file := filepath.Join(left, "db", "state.db")
	if err := datastore.Check(t.Context(), file, true); err != nil {
		t.Fatal(err)
	}
	store, err := datastore.Open(t.Context(), datastore.Options{File: file, Socket: filepath.Join(dir, "s2", "kine.sock")})
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{store.Endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, store, client)
	resp, err := client.Get(t.Context(), "/registry/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, kv := range resp.Kvs {
		found[string(kv.Key)] = true
	}
	for _, key := range keys {
		if !found[key] {
			lost++
		}
	}
	t.Logf("%d acknowledged, %d found, %d lost", len(keys), len(found), lost)
	return lost
}
