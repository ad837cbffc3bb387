package secret

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestHide(t *testing.T) {
	for name, tc := range map[string]struct {
		args, env  []string
		want       []string // with %d for each descriptor
		secretFlag string
		secretEnv  string
	}{
		"nothing to hide":   {args: []string{"k3m", "server", "--token-file", "x"}, want: []string{"k3m", "server", "--token-file", "x"}},
		"separate word":     {args: []string{"k3m", "server", "--token", "s3cret", "--node-name", "a"}, want: []string{"k3m", "server", "--token-fd=%d", "--node-name", "a"}, secretFlag: "s3cret"},
		"with equals":       {args: []string{"k3m", "server", "--token=s3cret"}, want: []string{"k3m", "server", "--token-fd=%d"}, secretFlag: "s3cret"},
		"after the dashes":  {args: []string{"k3m", "server", "--", "--token", "x"}, want: []string{"k3m", "server", "--", "--token", "x"}},
		"kubectl's own":     {args: []string{"k3m", "kubectl", "--token", "x", "get"}, want: []string{"k3m", "kubectl", "--token", "x", "get"}},
		"in a variable":     {args: []string{"k3m", "server"}, env: []string{"A=b", "K3M_TOKEN=s3cret"}, want: []string{"k3m", "server"}, secretEnv: "s3cret"},
		"flag without word": {args: []string{"k3m", "server", "--token"}, want: []string{"k3m", "server", "--token"}},
	} {
		t.Run(name, func(t *testing.T) {
			args, env, hidden, err := Hide(tc.args, tc.env)
			if err != nil {
				t.Fatal(err)
			}
			if hidden != (tc.secretFlag != "" || tc.secretEnv != "") {
				t.Errorf("hidden is %v", hidden)
			}
			for i, arg := range args {
				if number, ok := strings.CutPrefix(arg, "--token-fd="); ok {
					if got := read(t, number); got != tc.secretFlag {
						t.Errorf("descriptor holds %q, want %q", got, tc.secretFlag)
					}
					args[i] = "--token-fd=%d"
				}
			}
			if !slices.Equal(args, tc.want) {
				t.Errorf("args are %q, want %q", args, tc.want)
			}
			if strings.Contains(strings.Join(env, " "), "s3cret") {
				t.Errorf("the environment still holds the token: %q", env)
			}
			if tc.secretEnv != "" {
				number, _ := strings.CutPrefix(env[len(env)-1], "K3M_TOKEN_FD=")
				if got := read(t, number); got != tc.secretEnv {
					t.Errorf("descriptor holds %q, want %q", got, tc.secretEnv)
				}
			}
		})
	}
}

func read(t *testing.T, number string) string {
	t.Helper()
	fd, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "secret")
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
