package token_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/token"
)

const hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want token.Token
		err  string
	}{
		"whole":                 {in: "K10" + hash + "::node:secret-1234", want: token.Token{CAHash: hash, User: "node", Secret: "secret-1234"}},
		"with a line end":       {in: "K10" + hash + "::node:secret-1234\n", want: token.Token{CAHash: hash, User: "node", Secret: "secret-1234"}},
		"hash in capitals":      {in: "K10" + strings.ToUpper(hash) + "::node:secret-1234", want: token.Token{CAHash: hash, User: "node", Secret: "secret-1234"}},
		"empty":                 {in: "", err: "not of the form"},
		"secret alone":          {in: "secret-1234", err: "not of the form"},
		"no user":               {in: "K10" + hash + "::secret-1234", err: "not of the form"},
		"empty user":            {in: "K10" + hash + "::" + ":secret-1234", err: "not of the form"},
		"short hash":            {in: "K10" + hash[:62] + "::node:secret-1234", err: "not of the form"},
		"hash that is none":     {in: "K10" + strings.Repeat("z", 64) + "::node:secret-1234", err: "not of the form"},
		"short secret":          {in: "K10" + hash + "::node:short", err: "8 to 256 characters"},
		"secret with a space":   {in: "K10" + hash + "::node:secret 1234", err: "printable ASCII"},
		"secret with a colon":   {in: "K10" + hash + "::node:secret:1234", err: "printable ASCII"},
		"secret with a newline": {in: "K10" + hash + "::node:secret\n1234", err: "printable ASCII"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := token.Parse(c.in)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				if strings.Contains(err.Error(), "1234") {
					t.Errorf("the error tells the secret: %v", err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("K10" + hash + "::node:secret-1234")
	f.Add("K10::::")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := token.Parse(s)
		if err != nil {
			return
		}
		again, err := token.Parse(tok.String())
		if err != nil || again != tok {
			t.Errorf("%q became %+v, and that %+v, %v", s, tok, again, err)
		}
	})
}

func TestEnsure(t *testing.T) {
	ca, otherCA := []byte("an authority"), []byte("another")
	whole := func(ca []byte, secret string) string {
		return token.Token{CAHash: pki.Hash(ca), User: token.User, Secret: secret}.String()
	}
	for name, c := range map[string]struct {
		file  string // what is there before; "-" for no file
		given string
		want  string // the secret; "*" for a new one
		err   string
	}{
		"first start":                   {file: "-", want: "*"},
		"second start":                  {file: whole(ca, "kept-secret"), want: "kept-secret"},
		"a secret given":                {file: "-", given: "my-own-secret", want: "my-own-secret"},
		"another secret given":          {file: whole(ca, "kept-secret"), given: "my-own-secret", want: "my-own-secret"},
		"a whole token given":           {file: "-", given: whole(ca, "my-own-secret"), want: "my-own-secret"},
		"a secret in the file":          {file: "my-own-secret", want: "my-own-secret"},
		"another cluster's token given": {file: "-", given: whole(otherCA, "my-own-secret"), err: "another cluster"},
		"another cluster's file":        {file: whole(otherCA, "kept-secret"), err: "another cluster"},
		"another user's token":          {file: "-", given: strings.Replace(whole(ca, "my-own-secret"), "::node:", "::server:", 1), err: `user is "server"`},
		"a short secret":                {file: "-", given: "short", err: "8 to 256"},
		"an empty file":                 {file: "", err: "is empty: remove it"},
		"a corrupt file":                {file: "K10zz::node:my-own-secret", err: "not of the form"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "server", "node-token")
			if c.file != "-" {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			secret, err := token.Ensure(file, c.given, ca)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || c.want != "*" && secret != c.want || len(secret) < 8 {
				t.Fatalf("secret %q, %v; want %q", secret, err, c.want)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := token.Parse(string(data)); err != nil || got.Secret != secret || got.CAHash != pki.Hash(ca) {
				t.Errorf("the file says %+v, %v", got, err)
			}
			if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, want 0600", info.Mode())
			}
		})
	}
}
