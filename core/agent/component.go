package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// componentID is what may become a directory's name.
var componentID = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)

// ComponentKubeconfig gets a component its own client certificate on this node
// (CN=k3m:component:<id>:<node>) and returns the path of a kubeconfig that only root and uid
// can read. It blocks until the node has joined and the server answers, or ctx ends. Each call
// makes a new key; a running component's client takes it up by itself, since client-go looks at
// its files again.
func (a *Agent) ComponentKubeconfig(ctx context.Context, id string, uid int) (string, error) {
	path, err := a.componentKubeconfig(ctx, id, uid)
	if err != nil {
		return "", fmt.Errorf("identify component %s: %w", id, err)
	}
	return path, nil
}

func (a *Agent) componentKubeconfig(ctx context.Context, id string, uid int) (string, error) {
	if !componentID.MatchString(id) {
		return "", fmt.Errorf("%q is not a component's ID", id)
	}
	if err := wait(ctx, a.joined); err != nil {
		return "", err
	}
	node := a.identity()
	csr, key, err := pki.NewRequest()
	if err != nil {
		return "", err
	}
	client, err := verifiedClient(node.serverCA, &node.kubelet)
	if err != nil {
		return "", err
	}
	defer client.CloseIdleConnections()
	var resp wire.ComponentResponse
	err = a.retry(ctx, func() error {
		return post(ctx, client, a.opts.ServerURL+wire.ComponentPath, nil, wire.ComponentRequest{ID: id, CSR: string(csr)}, &resp)
	})
	if err != nil {
		return "", err
	}
	if _, err := checkPair("client", resp.Cert, key, node.clientCA, "k3m:component:"+id+":"+a.opts.NodeName); err != nil {
		return "", err
	}
	// Relative names, so that the directory can be mounted elsewhere.
	config, err := kubeconfig(a.opts.ServerURL, "server-ca.crt", "client.crt", "client.key")
	if err != nil {
		return "", err
	}
	dir := a.opts.path("components", id)
	if err := makeTraversable(a.opts.DataDir, dir); err != nil {
		return "", err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"server-ca.crt", node.serverCA}, {"client.crt", []byte(resp.Cert)}, {"client.key", key}, {"kubeconfig", config}} {
		if err := writeFor(uid, filepath.Join(dir, f.name), f.data); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "kubeconfig"), nil
}

// makeTraversable makes dir, and lets everybody pass through it and what lies between base
// and it, base included, without being able to list anything.
func makeTraversable(base, dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	rel, err := filepath.Rel(base, dir)
	if err != nil || strings.HasPrefix(rel, "..") {
		return fmt.Errorf("%s is not below %s", dir, base)
	}
	path := base
	for _, elem := range append([]string{"."}, strings.Split(rel, string(filepath.Separator))...) {
		path = filepath.Join(path, elem)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if mode := info.Mode().Perm(); mode&0o111 != 0o111 {
			if err := os.Chmod(path, mode|0o111); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeFor replaces path by a file that only uid (and root) can read. It is not synced: the
// next start writes it anew.
func writeFor(uid int, path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chown(uid, -1)
	}
	if err == nil {
		err = f.Chmod(0o400)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
