package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/sdk"
)

func TestConfigureRefusesAKeyThatIsSetAndUnset(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	config.Flags(flags)
	if err := flags.Set("config", file); err != nil {
		t.Fatal(err)
	}
	loader, err := config.NewLoader(flags, config.Environment{Hostname: os.Hostname})
	if err != nil {
		t.Fatal(err)
	}
	entry := components.Entry{Info: sdk.Info{Kind: "dns", Name: "coredns", ConfigSchema: json.RawMessage(
		`{"type":"object","properties":{"ttl":{"type":"integer"},"size":{"type":"integer"},"limits":{"type":"object","properties":{"cpu":{"type":"integer"}}}}}`)}}
	for words, refused := range map[string]bool{
		"ttl=1 ttl": true, "limits.cpu=1 limits": true, "limits={cpu: 1} limits.cpu": true, "ttl=1 size": false,
	} {
		d, err := openDropIn(file)
		if err != nil {
			t.Fatal(err)
		}
		i := strings.LastIndex(words, " ")
		err = configure(d, &localConfig{loader: loader}, entry, []string{words[:i]}, []string{words[i+1:]})
		if (err != nil) != refused || refused && !isMistake(err) {
			t.Errorf("configure %q --unset %q: %v", words[:i], words[i+1:], err)
		}
		d.close()
	}
}
