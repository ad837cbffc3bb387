package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/k3m-io/k3m/core/atomicfile"
)

// PKI is what a server needs to be the certificate authority of a cluster.
type PKI struct {
	// Dir is where the files are: <data-dir>/server/tls.
	Dir string

	Server        *Authority
	Client        *Authority
	RequestHeader *Authority

	// ServiceAccountKeyFile is the private key of service account tokens;
	// ServiceAccountPublicKeyFile is its public half.
	ServiceAccountKeyFile       string
	ServiceAccountPublicKeyFile string
}

// authorityNames are the files' names without .crt and .key.
var authorityNames = []string{"server-ca", "client-ca", "request-header-ca"}

const serviceAccountName = "service-account"

// Ensure loads the authorities in dir. When dir holds none, and clusterExists is false, it
// makes them. Pass clusterExists when there is a datastore already: its objects and nodes
// know the old authorities.
//
// Operators who bring their own authorities put all of the files into dir before the first
// start. A directory that holds some of them is an error, as is a corrupt one.
func Ensure(dir string, clusterExists bool) (*PKI, error) {
	missing, found, err := look(dir)
	if err != nil {
		return nil, err
	}
	switch {
	case len(missing) == 0:
	case len(found) == 0 && !clusterExists:
		if err := create(dir); err != nil {
			return nil, fmt.Errorf("create certificate authorities: %w", err)
		}
	case clusterExists:
		return nil, fmt.Errorf("load certificate authorities: %s missing although the cluster exists: restore it from a backup, or remove the whole data directory to start a new cluster", strings.Join(missing, ", "))
	default:
		return nil, fmt.Errorf("load certificate authorities: %s missing while %s exists: bring all of them, or remove %s to have new ones made", strings.Join(missing, ", "), found[0], dir)
	}
	return load(dir)
}

// ServerCAFile is the certificate, in dir, of the authority that signs what servers show.
func ServerCAFile(dir string) string { return filepath.Join(dir, authorityNames[0]+".crt") }

// Files are the paths of all that makes up the authorities in dir: who has them is the cluster.
func Files(dir string) []string {
	var files []string
	for _, name := range authorityNames {
		files = append(files, filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	}
	return append(files, filepath.Join(dir, serviceAccountName+".key"), filepath.Join(dir, serviceAccountName+".pub"))
}

// look sorts the files that make up the authorities into those that are missing and those
// that are there.
func look(dir string) (missing, found []string, err error) {
	for _, file := range Files(dir) {
		switch _, err := os.Lstat(file); {
		case err == nil:
			found = append(found, file)
		case errors.Is(err, os.ErrNotExist):
			missing = append(missing, file)
		default:
			return nil, nil, fmt.Errorf("load certificate authorities: %w", err)
		}
	}
	return missing, found, nil
}

// create makes all authorities in a directory beside dir and renames it to dir.
func create(dir string) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	staging, err := os.MkdirTemp(parent, ".tls-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(staging) // gone already when all went well

	for _, name := range authorityNames {
		certPEM, keyPEM, err := newAuthority(name)
		if err != nil {
			return err
		}
		if err := writePair(staging, name, certPEM, keyPEM); err != nil {
			return err
		}
	}
	key, keyPEM, err := newKey()
	if err != nil {
		return err
	}
	publicPEM, err := encodePublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(staging, serviceAccountName+".key"), keyPEM, 0o600); err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(staging, serviceAccountName+".pub"), publicPEM, 0o644); err != nil {
		return err
	}

	// Only an empty directory goes; anything else in dir is the operator's.
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s holds other files, move them away: %w", dir, err)
	}
	if err := os.Rename(staging, dir); err != nil {
		return err
	}
	return atomicfile.SyncDir(parent)
}

func load(dir string) (*PKI, error) {
	p := &PKI{
		Dir:                         dir,
		ServiceAccountKeyFile:       filepath.Join(dir, serviceAccountName+".key"),
		ServiceAccountPublicKeyFile: filepath.Join(dir, serviceAccountName+".pub"),
	}
	for i, into := range []**Authority{&p.Server, &p.Client, &p.RequestHeader} {
		a, err := loadAuthority(dir, authorityNames[i])
		if err != nil {
			return nil, fmt.Errorf("load certificate authority: %w", err)
		}
		*into = a
	}
	if err := checkServiceAccountKey(p.ServiceAccountKeyFile, p.ServiceAccountPublicKeyFile); err != nil {
		return nil, fmt.Errorf("load service account key: %w", err)
	}
	return p, nil
}

func writePair(dir, name string, certPEM, keyPEM []byte) error {
	if err := atomicfile.Write(filepath.Join(dir, name+".key"), keyPEM, 0o600); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, name+".crt"), certPEM, 0o644)
}
