package snapshot

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/token"
)

// What the key is made of: a secret that a person chose may be a weak one, so OWASP's figure of
// 2023 for PBKDF2 with SHA-256.
const (
	saltBytes = 16
	keyRounds = 600_000
	keyBytes  = 32 // AES-256
)

// nodePassword is the node's, without which a cluster refuses the node of that name.
const nodePassword = "node-password"

// bootstrapFiles are the files that a server on another machine needs, by their names in a snapshot.
func (o Options) bootstrapFiles() map[string]string {
	files := map[string]string{nodePassword: o.NodePasswordFile}
	for _, file := range pki.Files(o.TLSDir) {
		files["tls/"+filepath.Base(file)] = file
	}
	return files
}

// sealBootstrap reads the files and seals them with the node's token.
func (o Options) sealBootstrap() ([]byte, error) {
	contents := map[string][]byte{}
	for name, file := range o.bootstrapFiles() {
		content, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && name == nodePassword { // the node has not joined yet
			continue
		}
		if err != nil {
			return nil, err
		}
		contents[name] = content
	}
	text, err := os.ReadFile(o.TokenFile)
	if err != nil {
		return nil, err
	}
	t, err := token.Parse(string(text))
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(contents)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, saltBytes)
	if _, err := rand.Read(salt); err != nil {
		return nil, err
	}
	seal, err := cipherOf(t.Secret, salt)
	if err != nil {
		return nil, err
	}
	return append(salt, seal.Seal(nil, nil, plain, nil)...), nil
}

// cipherOf draws its own nonces.
func cipherOf(secret string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, secret, salt, keyRounds, keyBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// errWrongToken never repeats the token.
var errWrongToken = errors.New("the token does not open the snapshot's certificates: give the one that the cluster had when the snapshot was made (<data-dir>/server/node-token)")

// openBootstrap unseals the files. given is a whole token or its secret.
func openBootstrap(sealed []byte, given string) (map[string][]byte, error) {
	secret := strings.TrimSpace(given)
	if t, err := token.Parse(secret); err == nil {
		secret = t.Secret
	}
	if len(sealed) < saltBytes {
		return nil, errors.New("its certificates are cut off")
	}
	seal, err := cipherOf(secret, sealed[:saltBytes])
	if err != nil {
		return nil, err
	}
	plain, err := seal.Open(nil, nil, sealed[saltBytes:], nil)
	if err != nil {
		return nil, errWrongToken
	}
	contents := map[string][]byte{}
	return contents, json.Unmarshal(plain, &contents)
}

// putBootstrap writes the files into an empty data directory, and the token that belongs to them.
func (o Options) putBootstrap(contents map[string][]byte, given string) error {
	files := o.bootstrapFiles()
	for name := range contents {
		if files[name] == "" {
			return fmt.Errorf("it holds the file %q, which this k3m does not know", name)
		}
	}
	ca := contents["tls/"+filepath.Base(pki.ServerCAFile(o.TLSDir))]
	if _, err := token.Ensure(o.TokenFile, given, ca); err != nil {
		return err
	}
	// The server's authority last: with it, the directory counts as the cluster's.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(contents))) {
		if files[name] != pki.ServerCAFile(o.TLSDir) {
			if err := atomicfile.Write(files[name], contents[name], 0o600); err != nil {
				return err
			}
		}
	}
	return atomicfile.Write(pki.ServerCAFile(o.TLSDir), ca, 0o600)
}

// authorityHash is that of the node's cluster, "" when it has none yet.
func (o Options) authorityHash() (string, error) {
	ca, err := os.ReadFile(pki.ServerCAFile(o.TLSDir))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return pki.Hash(ca), nil
}

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }
