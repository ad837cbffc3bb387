package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/k3m-io/k3m/components"
	"github.com/k3m-io/k3m/core/config"
)

// shells are those for which there is a completion script.
var shells = []string{"bash", "zsh", "fish"}

func completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script with which a shell completes k3m's commands",
		Long: `Print a script with which bash, zsh or fish completes k3m's commands, flags, components and
their configuration keys, and what kubectl completes.`,
		Example: `  k3m completion bash | sudo tee /etc/bash_completion.d/k3m      # needs the package bash-completion
  k3m completion zsh | sudo tee /usr/local/share/zsh/site-functions/_k3m
  k3m completion fish > ~/.config/fish/completions/k3m.fish`,
		Args:                  cobra.ExactArgs(1),
		ValidArgs:             shells,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			}
			return usageError{fmt.Errorf("unknown shell %q%s; one of %s", args[0], config.DidYouMean(args[0], shells), strings.Join(shells, ", "))}
		},
	}
}

// completer gives the words that can come next.
type completer = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// addCompletions says for all commands what their words and the values of their flags can be;
// where nothing is said, there is nothing to offer.
func addCompletions(root *cobra.Command) {
	for path, words := range map[string]completer{
		"component info":      once(knownComponents),
		"component logs":      once(knownComponents),
		"component restart":   many(runningComponents),
		"component enable":    many(enableWords),
		"component disable":   many(runningComponents),
		"component configure": configurable,
		"component dashboard": once(knownComponents),
		"component remove":    once(knownComponents),
		"component install":   files,
		"snapshot restore":    files,
		"snapshot check":      files,
		"man":                 files,
		"kubectl":             completeKubectl,
	} {
		if c, _, err := root.Find(strings.Fields(path)); err == nil {
			c.ValidArgsFunction = words
		}
	}
	for _, c := range allCommands(root) {
		for flag, words := range map[string]completer{
			"output": fixed(formats...), "enable": commaSeparated(enableWords), "disable": commaSeparated(knownComponents),
			"flannel-backend": fixed(config.FlannelBackends...), "log-format": fixed("text", "json"),
		} {
			if c.Flags().Lookup(flag) != nil {
				_ = c.RegisterFlagCompletionFunc(flag, words) // fails for a flag that isn't there
			}
		}
		if c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 && !c.HasSubCommands() && !c.DisableFlagParsing {
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
}

func allCommands(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, child := range c.Commands() {
		all = append(all, allCommands(child)...)
	}
	return all
}

func fixed(words ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// files leaves it to the shell, which offers files.
func files(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// once offers words as long as none was given.
func once(words func(*cobra.Command) []string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words(cmd), cobra.ShellCompDirectiveNoFileComp
	}
}

// many offers the words that were not given.
func many(words func(*cobra.Command) []string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return slices.DeleteFunc(words(cmd), func(w string) bool { return slices.Contains(args, w) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// commaSeparated offers the next word of a list.
func commaSeparated(words func(*cobra.Command) []string) completer {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		before := begun[:strings.LastIndexByte(begun, ',')+1]
		all := words(cmd)
		for i := range all {
			all[i] = before + all[i]
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// nodeOf is the node that the command line so far is about.
func nodeOf(cmd *cobra.Command) node {
	var n node
	if f := cmd.Flags().Lookup("data-dir"); f != nil {
		n.dataDir = f.Value.String()
	}
	if f := cmd.Flags().Lookup("run-dir"); f != nil {
		n.runDir = f.Value.String()
	}
	n.resolve()
	return n
}

// knownComponents are the IDs of all components of the distribution and the node, and the kinds.
func knownComponents(cmd *cobra.Command) []string {
	catalog, err := localCatalog(nodeOf(cmd))
	if err != nil {
		return nil
	}
	words := catalogIDs(catalog)
	for _, k := range components.Kinds() {
		words = append(words, k.Name)
	}
	return words
}

// enableWords are what --enable takes.
func enableWords(cmd *cobra.Command) []string {
	catalog, err := localCatalog(nodeOf(cmd))
	if err != nil {
		return nil
	}
	words := []string{"cni=none"}
	for _, id := range catalogIDs(catalog) {
		words = append(words, strings.Replace(id, ".", "=", 1))
	}
	return words
}

// runningComponents are the IDs of those that a server runs, else of all.
func runningComponents(cmd *cobra.Command) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	statuses, err := componentStatuses(ctx, nodeOf(cmd))
	if err != nil {
		return knownComponents(cmd)
	}
	return statusIDs(statuses)
}

// completionPatience is how long somebody waits for a tab.
const completionPatience = 2 * time.Second

// configurable offers components, then the keys of the one that was named.
func configurable(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return knownComponents(cmd), cobra.ShellCompDirectiveNoFileComp
	}
	catalog, err := localCatalog(nodeOf(cmd))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	id, err := components.ResolveID(args[0], catalogIDs(catalog))
	if err != nil || strings.Contains(begun, "=") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	entry, _ := catalog.Find(id)
	keys, err := components.ConfigKeys(entry.Info)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	for _, k := range keys {
		words = append(words, k.Path+"=\t"+strings.Join(strings.Fields(k.Description), " "))
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeKubectl asks kubectl, which is this executable, with the words as it knows them.
func completeKubectl(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	named, args := cutNodeFlags(args)
	words := []string{"kubectl"}
	if named.dataDir != "" {
		words = append(words, "--data-dir="+named.dataDir)
	}
	out, err := exec.CommandContext(ctx, "/proc/self/exe", append(append(append(words, cobra.ShellCompRequestCmd), args...), begun)...).Output()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	// Its last line is ":" and the directive.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	last := lines[len(lines)-1]
	directive, err := strconv.Atoi(strings.TrimPrefix(last, ":"))
	if err != nil || !strings.HasPrefix(last, ":") {
		return nil, cobra.ShellCompDirectiveError
	}
	return lines[:len(lines)-1], cobra.ShellCompDirective(directive)
}
