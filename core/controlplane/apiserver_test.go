package controlplane

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAnonymousRequestsAreLimited(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string // the flag that k3m adds
	}{
		"by default":                     {nil, "authentication-config"},
		"with the oidc flags":            {[]string{"oidc-issuer-url=https://issuer.example", "oidc-client-id=k3m"}, "anonymous-auth"},
		"with the user's configuration":  {[]string{"authentication-config=/etc/k3m/authn.yaml"}, ""},
		"with the user's own will":       {[]string{"--anonymous-auth=false"}, ""},
		"with another flag of that kind": {[]string{"authentication-token-webhook-cache-ttl=1m"}, "authentication-config"},
	} {
		t.Run(name, func(t *testing.T) {
			cp := New(Options{DataDir: t.TempDir(), Args: Args{APIServer: c.args}})
			got, err := cp.appendAnonymous(nil)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.want == "" && len(got) > 0, c.want != "" && (len(got) != 1 || got[0].name != c.want):
				t.Fatalf("adds %v, want %q", got, c.want)
			case c.want == "anonymous-auth" && got[0].value != "false":
				t.Errorf("anonymous-auth=%s", got[0].value)
			case c.want == "authentication-config":
				file := filepath.Join(cp.opts.credDir(), "authentication.yaml")
				if data, err := os.ReadFile(file); err != nil || string(data) != authenticationConfig || got[0].value != file {
					t.Errorf("%v, %q, %v", got, data, err)
				}
			}
		})
	}
}
