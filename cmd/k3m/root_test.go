package main

import (
	"slices"
	"strings"
	"testing"
)

func TestMistakesOnTheCommandLine(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no distribution":     {[]string{"ctr"}, 2, "unpacked distribution"},
		"unknown flag":        {[]string{"server", "--nod-name", "x"}, 2, `did you mean "--node-name"?`},
		"word too many":       {[]string{"version", "x"}, 2, `"x"`},
		"output format":       {[]string{"component", "list", "-o", "jsn"}, 2, `did you mean "json"?`},
		"no server":           {[]string{"component", "list", "--run-dir", t.TempDir()}, 1, "no server answers"},
		"uninstall unasked":   {[]string{"uninstall"}, 2, "--yes"},
		"half unasked":        {[]string{"uninstall", "--keep-data"}, 2, "networks and images"},
		"nothing to stop":     {[]string{"stop", "--data-dir", t.TempDir()}, 1, "no node keeps its state"},
		"a negative grace":    {[]string{"stop", "--kill-pods", "--grace=-1s"}, 2, "--grace"},
		"another shell":       {[]string{"completion", "bsh"}, 2, `did you mean "bash"?`},
		"a check's mistake":   {[]string{"check", "--flannel-backend", "vxlam"}, 2, `did you mean "vxlan"?`},
		"a check's format":    {[]string{"check", "-o", "jsn"}, 2, `did you mean "json"?`},
		"no such sub-command": {[]string{"component", "lst"}, 2, `did you mean "list"?`},
		"help for nothing":    {[]string{"help", "nosuch"}, 2, `unknown command "nosuch"`},
		"help for a sub-word": {[]string{"help", "component", "lst"}, 2, "k3m help component"},
		"no patience":         {[]string{"component", "restart", "--timeout", "0s", "dns"}, 2, "--timeout"},
		"less than none":      {[]string{"component", "enable", "--timeout=-5s", "dns"}, 2, "--timeout"},
		"no such global flag": {[]string{"component", "list", "--version"}, 2, "unknown flag"},
		"nothing to install":  {[]string{"component", "install"}, 2, "arg"},
		"not a configuration": {[]string{"server", "--config", t.TempDir()}, 2, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			root := rootCommand()
			root.SetArgs(tc.args)
			err := root.Execute()
			if err == nil {
				t.Fatal("it was accepted")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
			if code := exitCode(err); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
		})
	}
}

func TestVersionFlag(t *testing.T) {
	var out strings.Builder
	root := rootCommand()
	root.SetArgs([]string{"--version"})
	root.SetOut(&out)
	if err := root.Execute(); err != nil || out.String() != "k3m "+shortVersion()+"\n" {
		t.Errorf("it says %q, %v", out.String(), err)
	}
}

func TestHelpOfASubCommand(t *testing.T) {
	var out strings.Builder
	root := rootCommand()
	root.SetArgs([]string{"help", "component", "restart"})
	root.SetOut(&out)
	if err := root.Execute(); err != nil || !strings.Contains(out.String(), "k3m component restart COMPONENT...") || strings.Contains(out.String(), "Global Flags") {
		t.Errorf("it says %q, %v", out.String(), err)
	}
}

func TestNodeFlagsBeforeKubectlsWords(t *testing.T) {
	for name, tc := range map[string]struct {
		args, rest []string
		node       node
	}{
		"none":            {args: []string{"get", "pods"}, rest: []string{"get", "pods"}},
		"separate words":  {args: []string{"--data-dir", "/a", "get"}, rest: []string{"get"}, node: node{dataDir: "/a"}},
		"with equals":     {args: []string{"--run-dir=/r", "--data-dir=/a", "get"}, rest: []string{"get"}, node: node{dataDir: "/a", runDir: "/r"}},
		"kubectl's own":   {args: []string{"exec", "p", "--", "--data-dir", "/a"}, rest: []string{"exec", "p", "--", "--data-dir", "/a"}},
		"without a value": {args: []string{"--data-dir"}, rest: []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			n, rest := cutNodeFlags(tc.args)
			if n != tc.node || !slices.Equal(rest, tc.rest) {
				t.Errorf("node %+v, rest %q", n, rest)
			}
		})
	}
}

func TestKubectlCommandsThatNeedNoServer(t *testing.T) {
	for words, want := range map[string]bool{
		"get nodes":                   true,
		"--namespace=a get pods":      true,
		"":                            false,
		"version --client":            false,
		"config view":                 false,
		"get --help":                  false,
		"--kubeconfig=/mine get pods": false,
		"get pods -s https://a":       false,
	} {
		if got := wantsServer(strings.Fields(words)); got != want {
			t.Errorf("kubectl %s: wants a server is %v", words, got)
		}
	}
}

func TestKubeconfigOfKubectl(t *testing.T) {
	for name, tc := range map[string]struct {
		named node
		env   map[string]string
		want  string
	}{
		"KUBECONFIG wins":         {env: map[string]string{"KUBECONFIG": "/mine", "K3M_DATA_DIR": "/srv/k3m"}, want: ""},
		"data directory named":    {named: node{dataDir: "/srv/k3m"}, env: map[string]string{"KUBECONFIG": "/mine"}, want: "/srv/k3m/server/cred/admin.kubeconfig"},
		"data directory variable": {env: map[string]string{"K3M_DATA_DIR": "/srv/k3m"}, want: "/srv/k3m/server/cred/admin.kubeconfig"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", "")
			for k, v := range tc.env {
				t.Setenv(k, v)
			}
			if got := nodeKubeconfig(tc.named); got != tc.want {
				t.Errorf("KUBECONFIG becomes %q, want %q", got, tc.want)
			}
		})
	}
}
