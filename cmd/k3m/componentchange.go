package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
)

// reloadPatience is how long a server may take to swap components: a stop and a cleanup each.
const reloadPatience = 2 * time.Minute

// changeCommand is what enable, disable and configure have in common: they change k3m's own
// drop-in, have the merged configuration checked, and tell the server that runs.
type changeCommand struct {
	node    node
	config  string
	yes     bool
	timeout time.Duration
	out     io.Writer
}

func (c *changeCommand) addFlags(cmd *cobra.Command) {
	addNodeFlags(cmd, &c.node)
	cmd.Flags().StringVar(&c.config, "config", "", "the configuration file, where no server runs ("+config.Variable("config")+", default "+config.DefaultFile+")")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "do it although running objects depend on what stops")
	addTimeoutFlag(cmd, &c.timeout)
}

func componentEnableCommand() *cobra.Command {
	var c changeCommand
	cmd := &cobra.Command{
		Use:   "enable COMPONENT...",
		Short: "Enable components, now and at every start",
		Long: `Enable components, now and at every start: what is enabled of a kind replaces its
defaults, and what was enabled before where one of the kind may run. The choice is kept
in a drop-in beside the configuration file; a server that runs starts the component and
leaves all else alone.`,
		Example: `  sudo k3m component enable servicelb
  sudo k3m component enable addon=whoami       # after k3m component install`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.choose(cmd, args, true)
		},
	}
	c.addFlags(cmd)
	return cmd
}

func componentDisableCommand() *cobra.Command {
	var c changeCommand
	cmd := &cobra.Command{
		Use:   "disable COMPONENT...",
		Short: "Disable components, now and at every start",
		Long: `Disable components, now and at every start. The choice is kept in a drop-in beside the
configuration file; a server that runs stops the component, and removes what it left on
the host and in the cluster, but no user data: disabling local-storage keeps every volume
readable. If running objects depend on it, they are listed, and --yes is needed.`,
		Example: `  sudo k3m component disable servicelb metrics-server
  sudo k3m component disable --yes local-storage`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.choose(cmd, args, false)
		},
	}
	c.addFlags(cmd)
	return cmd
}

// choose changes the lists of enabled and disabled components.
func (c *changeCommand) choose(cmd *cobra.Command, args []string, on bool) error {
	turn := (*chooser).turnOff
	if on {
		turn = (*chooser).turnOn
	}
	var wishes []wish
	edit := func(d *dropIn, l *localConfig) error {
		weaker, err := l.load(map[string][]byte{d.path: nil})
		if err != nil {
			return err
		}
		now, err := l.load(nil)
		if err != nil {
			return err
		}
		chooser := newChooser(l.catalog, config.Texts(now.Enable), config.Texts(now.Disable))
		for _, word := range args {
			if err := turn(chooser, word); err != nil {
				return err
			}
			target, err := components.ResolveChoice(l.catalog, fromCommand, word)
			if err != nil {
				return err
			}
			wishes = append(wishes, wish{target, on})
		}
		d.setList("enable", items(config.Texts(weaker.Enable)), chooser.enable)
		d.setList("disable", items(config.Texts(weaker.Disable)), chooser.disable)
		return l.sees(d, chooser)
	}
	return c.change(cmd, []string{"enable", "disable"}, edit, func(selected []string) bool {
		return !slices.ContainsFunc(wishes, func(w wish) bool { return !w.fulfilled(selected) })
	})
}

// wish is that what target names is selected, or that it is not.
type wish struct {
	target components.Target
	on     bool
}

// fulfilled tells whether a server with these components does as is wished.
func (w wish) fulfilled(selected []string) bool {
	there := slices.ContainsFunc(selected, func(id string) bool {
		return id == w.target.ID || w.target.ID == "" && strings.HasPrefix(id, w.target.Kind+".")
	})
	return there == (w.on && !w.target.None)
}

// sees checks that no drop-in that is read later undoes the choice.
func (l *localConfig) sees(d *dropIn, wanted *chooser) error {
	text, err := d.text()
	if err != nil {
		return err
	}
	cfg, err := l.load(map[string][]byte{d.path: text})
	if err != nil {
		return err
	}
	for _, list := range []struct {
		option string
		values []config.Value
		wanted []string
	}{{"enable", cfg.Enable, wanted.enable}, {"disable", cfg.Disable, wanted.disable}} {
		if !slices.Equal(items(config.Texts(list.values)), list.wanted) {
			source := config.DropInDir(cfg.File)
			if len(list.values) > 0 {
				source = list.values[len(list.values)-1].Source
			}
			return &config.Error{Source: source, Message: fmt.Sprintf("`%s` is decided here, after %s; change it here", list.option, d.path)}
		}
	}
	return nil
}

// localConfig is the configuration as this command sees it: the files of the server that runs,
// or those that the next one would read.
type localConfig struct {
	loader  *config.Loader
	catalog *components.Catalog
}

func (l *localConfig) load(overlay map[string][]byte) (*config.Config, error) {
	return l.loader.Load(overlay)
}

// change has edit change k3m's drop-in, and puts the result in force. options are those that
// edit may change; inForce tells whether a server that has these components selected does as
// they say.
func (c *changeCommand) change(cmd *cobra.Command, options []string, edit func(*dropIn, *localConfig) error, inForce func(selected []string) bool) error {
	if os.Geteuid() != 0 {
		return errors.New("changing the configuration needs root; try sudo")
	}
	ctx := cmd.Context()
	c.out = cmd.OutOrStdout()
	c.node.resolve()
	settings, running, err := c.settings(ctx)
	if err != nil {
		return err
	}
	l, err := c.localConfig(settings.File, running)
	if err != nil {
		return err
	}
	d, err := openDropIn(settings.File)
	if err != nil {
		return err
	}
	defer d.close()
	if err := edit(d, l); err != nil {
		return err
	}
	text, err := d.text()
	if err != nil {
		return err
	}
	done := true
	if running {
		statuses, err := componentStatuses(ctx, c.node)
		if err != nil {
			return err
		}
		done = inForce(statusIDs(statuses))
	}
	if done && string(text) == string(d.before) {
		fmt.Fprintln(c.out, "nothing to change: the configuration says so already")
		return nil
	}
	for _, option := range options {
		if source := settings.Stronger[option]; source != "" {
			return fmt.Errorf("the running server was started with %s, which is stronger than any file: change it there, or move it into %s, and start k3m again",
				source, settings.File)
		}
	}
	if !running {
		return c.forNextStart(d, l, text)
	}
	return c.live(ctx, d, text)
}

// settings asks the server that runs; without one it says what the next would read.
func (c *changeCommand) settings(ctx context.Context) (settings settingsAnswer, running bool, err error) {
	err = askAdmin(ctx, c.node.runDir, settingsPath, &settings)
	var none noServerError
	switch {
	case err == nil && c.config != "" && c.config != settings.File:
		return settings, true, usageError{fmt.Errorf("--config %s: the server that runs was started with %s", c.config, settings.File)}
	case err == nil:
		return settings, true, nil
	case !errors.As(err, &none):
		return settings, false, err
	}
	settings.File = c.config
	if settings.File == "" {
		settings.File = os.Getenv(config.Variable("config"))
	}
	if settings.File == "" {
		settings.File = config.DefaultFile
	}
	return settings, false, nil
}

// localConfig loads as the server would: where one runs its flags and variables are not ours,
// and it checks for itself.
func (c *changeCommand) localConfig(file string, running bool) (*localConfig, error) {
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	config.Flags(flags)
	if _, err := os.Stat(file); err == nil { // a file that is named must exist
		if err := flags.Set("config", file); err != nil {
			return nil, err
		}
	} else if file != config.DefaultFile {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	env := config.Environment{Hostname: os.Hostname}
	if !running {
		env.Lookup = os.LookupEnv
		if err := flags.Set("data-dir", c.node.dataDir); err != nil {
			return nil, err
		}
	}
	loader, err := config.NewLoader(flags, env)
	if err != nil {
		return nil, err
	}
	catalog, err := localCatalog(c.node)
	if err != nil {
		return nil, err
	}
	return &localConfig{loader, catalog}, nil
}

// forNextStart writes the drop-in where no server runs, if one could start with it.
func (c *changeCommand) forNextStart(d *dropIn, l *localConfig, text []byte) error {
	cfg, err := l.load(map[string][]byte{d.path: text})
	if err != nil {
		return err
	}
	if _, err := newPlan(cfg); err != nil {
		return err
	}
	if err := d.write(text); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "kept in %s; no server runs, so it takes effect at the next start\n", d.path)
	return nil
}

// live has the server check the change, writes it, and has the server make it.
func (c *changeCommand) live(ctx context.Context, d *dropIn, text []byte) error {
	ctx, cancel := context.WithTimeout(ctx, reloadPatience)
	defer cancel()
	request := reloadRequest{Check: true, Path: d.path}
	if text != nil {
		content := string(text)
		request.Text = &content
	}
	var would, did reloadAnswer
	if err := sendAdmin(ctx, c.node.runDir, http.MethodPost, reloadPath, request, &would); err != nil {
		return err
	}
	if len(would.Uses) > 0 {
		writeDependents(c.out, would.Uses)
		if !c.yes {
			return errors.New("running objects depend on this; add --yes if you mean it")
		}
	}
	if err := d.write(text); err != nil {
		return err
	}
	start := time.Now()
	if err := sendAdmin(ctx, c.node.runDir, http.MethodPost, reloadPath, reloadRequest{}, &did); err != nil {
		return d.unmade(err)
	}
	d.close() // others need not wait while components start
	return c.tell(ctx, d, did, start)
}

// tell prints what changed and waits for what starts. The change was asked for at start.
func (c *changeCommand) tell(ctx context.Context, d *dropIn, did reloadAnswer, start time.Time) error {
	for _, id := range did.Stopped {
		fmt.Fprintf(c.out, "stopped %s\n", id)
		if strings.HasPrefix(id, "local-storage.") {
			fmt.Fprintln(c.out, "  every volume stays as it is and readable; none is made, resized or removed any more")
		}
		if left := did.Left[id]; left != "" {
			fmt.Fprintf(c.out, "  something was left on the host: %s\n", left)
		}
	}
	verbs := map[string]string{}
	for _, id := range did.Started {
		verbs[id] = "started"
		delete(did.Restarts, id)
	}
	for _, id := range did.Restarted {
		verbs[id] = "restarted"
	}
	if did.unchanged() {
		fmt.Fprintln(c.out, "no component changes")
	}
	if len(did.Later) > 0 {
		fmt.Fprintf(c.out, "changed in the files too, and for the next start of k3m: %s\n", strings.Join(did.Later, ", "))
	}
	fmt.Fprintf(c.out, "kept in %s\n", d.path)
	r := readiness{start: start, restarts: did.Restarts, told: func(s components.ComponentStatus, after time.Duration) {
		fmt.Fprintf(c.out, "%s %s, ready after %s\n", verbs[s.ID], s.ID, after.Round(10*time.Millisecond))
	}}
	return r.await(ctx, c.node, c.timeout, slices.Concat(did.Started, did.Restarted))
}

func writeDependents(w io.Writer, all []dependents) {
	for _, d := range all {
		fmt.Fprintf(w, "these depend on %s; without it %s:\n", d.Component, d.Effect)
		for _, object := range d.Objects {
			fmt.Fprintf(w, "  %s\n", object)
		}
		if d.More > 0 {
			fmt.Fprintf(w, "  and %d more\n", d.More)
		}
	}
}
