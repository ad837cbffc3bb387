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
	cert, key, err := a.componentCertificate(ctx, wire.ComponentPath, id)
	if err != nil {
		return "", err
	}
	node := a.identity()
	if _, err := checkPair("client", cert, key, node.clientCA, "k3m:component:"+id+":"+a.opts.NodeName); err != nil {
		return "", err
	}
	// Relative names, so that the directory can be mounted elsewhere.
	config, err := kubeconfig(a.opts.ServerURL, "server-ca.crt", "client.crt", "client.key")
	if err != nil {
		return "", err
	}
	dir, err := a.writeComponent(id, uid, file{"server-ca.crt", node.serverCA}, file{"client.crt", []byte(cert)},
		file{"client.key", key}, file{"kubeconfig", config})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "kubeconfig"), nil
}

// ComponentServing gets a component a TLS certificate for the DNS names of its Services, signed
// by the server CA, and returns the paths of it and its key, which only root and uid can read.
// It blocks as ComponentKubeconfig does, and makes a new key at each call too.
func (a *Agent) ComponentServing(ctx context.Context, id string, uid int) (cert, key string, err error) {
	dir, err := a.componentServing(ctx, id, uid)
	if err != nil {
		return "", "", fmt.Errorf("certify component %s: %w", id, err)
	}
	return filepath.Join(dir, "serving.crt"), filepath.Join(dir, "serving.key"), nil
}

func (a *Agent) componentServing(ctx context.Context, id string, uid int) (dir string, err error) {
	cert, key, err := a.componentCertificate(ctx, wire.ComponentServingPath, id)
	if err != nil {
		return "", err
	}
	if _, err := checkPair("serving", cert, key, a.identity().serverCA, ""); err != nil {
		return "", err
	}
	return a.writeComponent(id, uid, file{"serving.crt", []byte(cert)}, file{"serving.key", key})
}

// componentCertificate makes a key and has a server sign a certificate for it.
func (a *Agent) componentCertificate(ctx context.Context, path, id string) (cert string, key []byte, err error) {
	if !componentID.MatchString(id) {
		return "", nil, fmt.Errorf("%q is not a component's ID", id)
	}
	if err := wait(ctx, a.joined); err != nil {
		return "", nil, err
	}
	node := a.identity()
	csr, key, err := pki.NewRequest()
	if err != nil {
		return "", nil, err
	}
	client, err := verifiedClient(node.serverCA, &node.kubelet)
	if err != nil {
		return "", nil, err
	}
	defer client.CloseIdleConnections()
	var resp wire.ComponentResponse
	err = a.retry(ctx, func() error {
		return post(ctx, client, a.opts.ServerURL+path, nil, wire.ComponentRequest{ID: id, CSR: string(csr)}, &resp)
	})
	return resp.Cert, key, err
}

// file is a file of a component's own.
type file struct {
	name string
	data []byte
}

// writeComponent writes files for a component's user into its directory.
func (a *Agent) writeComponent(id string, uid int, files ...file) (dir string, err error) {
	dir = a.opts.path("components", id)
	if err := makeTraversable(a.opts.DataDir, dir); err != nil {
		return "", err
	}
	for _, f := range files {
		if err := writeFor(uid, filepath.Join(dir, f.name), f.data); err != nil {
			return "", err
		}
	}
	return dir, nil
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
