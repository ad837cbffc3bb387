// Command badplugin is a plugin that misbehaves on purpose, for the tests of hosts: what
// it does must be refused or contained. modes.go has the ways, misdeeds.go the deeds.
//
// Which way, and under which component ID, is said when it is built, by its first two
// arguments or by its environment, in that order:
//
//	go build -ldflags "-X main.mode=panic-in-run -X main.id=addon.crasher" .
//	badplugin panic-in-run addon.crasher
//	BADPLUGIN_MODE=panic-in-run BADPLUGIN_ID=addon.crasher badplugin
//
// Without an ID it is addon.<mode>. The mode "good" behaves well, whatever its ID.
package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/k3m-io/k3m/sdk"
)

// mode and id may be set by the linker.
var mode, id string

func main() {
	args := append(slices.Clone(os.Args[1:]), "", "")
	mode = cmp.Or(mode, args[0], os.Getenv("BADPLUGIN_MODE"))
	m, ok := modes[mode]
	if !ok {
		fmt.Fprintf(os.Stderr, "badplugin: unknown mode %q; modes are %s\n", mode, modeNames())
		os.Exit(2)
	}
	kind, name, _ := strings.Cut(cmp.Or(id, args[1], os.Getenv("BADPLUGIN_ID"), "addon."+mode), ".")
	if m.start != nil {
		m.start()
	}
	plugin := &bad{kind: kind, name: name, mode: m}
	if m.metrics != "" {
		sdk.Serve(measured{plugin})
		return
	}
	sdk.Serve(plugin)
}
