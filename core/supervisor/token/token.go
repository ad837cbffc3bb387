// Package token is the token that nodes join a cluster with:
//
//	K10<SHA-256 of the server CA's PEM file, hexadecimal>::<user>:<secret>
//
// The hash tells a node which server it may tell the secret to, before it knows anybody: who
// answers in place of the server shows another authority. The secret tells the server that the
// node may join. A secret alone can be given to a server, which makes the token of it; a node
// needs the whole token.
package token

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/k3m-io/k3m/core/atomicfile"
	"github.com/k3m-io/k3m/core/pki"
)

// User is the user of tokens that let nodes join.
const User = "node"

const (
	prefix = "K10"
	// secretBytes of randomness in a secret that k3m makes; 128 bits can't be guessed.
	secretBytes = 16
	// minSecret and maxSecret bound a secret that a person chooses, in bytes.
	minSecret = 8
	maxSecret = 256
	maxFile   = 1024
)

// Token is a token taken apart.
type Token struct {
	// CAHash is the hash of the server CA's PEM file, in lower case.
	CAHash string
	// User says what the token is for.
	User string
	// Secret is what nobody else knows.
	Secret string
}

// String is the token as a person copies it.
func (t Token) String() string {
	return prefix + t.CAHash + "::" + t.User + ":" + t.Secret
}

// errForm never repeats the token: it ends up in logs.
var errForm = errors.New("token is not of the form K10<hash>::node:<secret>: copy it whole from <data-dir>/server/node-token of a server")

// Parse reads a whole token.
func Parse(s string) (Token, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(s), prefix)
	if !ok {
		return Token{}, errForm
	}
	hash, rest, ok := strings.Cut(rest, "::")
	if !ok {
		return Token{}, errForm
	}
	user, secret, ok := strings.Cut(rest, ":")
	if !ok || user == "" {
		return Token{}, errForm
	}
	if raw, err := hex.DecodeString(hash); err != nil || len(raw) != 32 {
		return Token{}, errForm
	}
	if err := checkSecret(secret); err != nil {
		return Token{}, err
	}
	return Token{CAHash: strings.ToLower(hash), User: user, Secret: secret}, nil
}

// checkSecret accepts what goes through HTTP basic authentication and one line of a file.
func checkSecret(secret string) error {
	if len(secret) < minSecret || len(secret) > maxSecret {
		return fmt.Errorf("the token's secret must have %d to %d characters", minSecret, maxSecret)
	}
	for _, c := range []byte(secret) {
		if c <= ' ' || c > '~' || c == ':' {
			return errors.New("the token's secret must be of printable ASCII characters without spaces and colons")
		}
	}
	return nil
}

// Ensure keeps the node token of a cluster in file, 0600, and returns its secret. given is what
// the user said: a whole token, a secret, or nothing; if it is nothing, the secret in the
// file stays, and is made when there is none. The token gets the hash of serverCA; one that
// names another authority is refused, as it is meant for another cluster.
func Ensure(file, given string, serverCA []byte) (secret string, err error) {
	hash := pki.Hash(serverCA)
	if given = strings.TrimSpace(given); given == "" {
		if given, err = read(file); err != nil {
			return "", err
		}
	}
	switch {
	case given == "":
		if secret, err = newSecret(); err != nil {
			return "", fmt.Errorf("make node token: %w", err)
		}
	case strings.HasPrefix(given, prefix) && strings.Contains(given, "::"):
		t, err := Parse(given)
		if err != nil {
			return "", fmt.Errorf("use node token: %w", err)
		}
		if t.CAHash != hash {
			return "", fmt.Errorf("use node token: it names the authority of another cluster: give its secret alone (what follows %q), or remove %s", User+":", file)
		}
		if t.User != User {
			return "", fmt.Errorf("use node token: its user is %q, want %q", t.User, User)
		}
		secret = t.Secret
	default:
		if err := checkSecret(given); err != nil {
			return "", fmt.Errorf("use node token: %w", err)
		}
		secret = given
	}
	whole := Token{CAHash: hash, User: User, Secret: secret}.String()
	if old, err := read(file); err == nil && old == whole {
		return secret, nil
	}
	return secret, atomicfile.Write(file, []byte(whole+"\n"), 0o600)
}

// read returns the file's content without white space around it, "" if there is no file.
func read(file string) (string, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read node token: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return "", fmt.Errorf("read node token: %w", err)
	}
	content := strings.TrimSpace(string(data))
	if content == "" {
		return "", fmt.Errorf("read node token: %s is empty: remove it to have a new one made", file)
	}
	return content, nil
}

func newSecret() (string, error) {
	raw := make([]byte, secretBytes)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	return hex.EncodeToString(raw), nil
}
