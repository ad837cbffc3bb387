package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/k3m-io/k3m/cmd/internal/redact"
	"github.com/k3m-io/k3m/cmd/internal/support"
	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/hostcheck"
	"github.com/k3m-io/k3m/core/ledger"
)

func supportBundleCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "support-bundle",
		Short: "Write an archive with which others can find out what is wrong with this node",
		Long: `Write an archive (tar, gzip; mode 0600) with which others can find out what is wrong with
this node: its log, the state of its parts and components, versions, k3m check, nodes,
events and kube-system's objects of the cluster, the configuration, and what the machine
is. It also works while no server runs; then there is less in it.

Secrets are taken out: by value those of this node and of the cluster (Secrets, tokens,
keys, passwords of the configuration), and by name and form whatever else looks like one.
Variables, arguments and foreign annotations of pods, and command lines are not in it at
all. Names and addresses are; look at it before you give it away.

The flags are those of k3m server, and the same configuration is read.`,
		Example: `  sudo k3m support-bundle
  sudo k3m support-bundle --file /tmp/edge-1.tar.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("most of a support bundle can be read by root alone; try sudo")
			}
			cfg, broken := config.Load(cmd.Flags(), config.Environment{Lookup: os.LookupEnv, Hostname: hostname})
			if broken != nil { // then it is what the bundle is to tell
				cfg = brokenConfig()
			}
			return writeBundle(cmd.Context(), cmd.OutOrStdout(), cfg, broken, file)
		},
	}
	config.Flags(c.Flags())
	c.Flags().StringVarP(&file, "file", "f", "", "the archive's name (default k3m-support-<node>-<time>.tar.gz in the working directory)")
	return c
}

// brokenConfig is what can be known of a node whose configuration can't be read.
func brokenConfig() *config.Config {
	cfg := &config.Config{
		NodeName: placeholderName, File: config.File(os.Args[1:], os.LookupEnv),
		DataDir: config.DataDir(os.Args[1:], os.LookupEnv), RunDir: config.RunDir(os.Args[1:], os.LookupEnv),
	}
	if made, err := ledger.Read(cfg.DataDir); err == nil && config.ValidNodeName(made.NodeName) {
		cfg.NodeName = made.NodeName
	}
	return cfg
}

// bundlePatience bounds the questions that a bundle asks of server and cluster.
const bundlePatience = 2 * time.Minute

// collector gathers a bundle's content.
type collector struct {
	*support.Bundle
	cfg     *config.Config
	n       node
	cluster *rest.Config // nil when there is none to ask
}

func writeBundle(ctx context.Context, out io.Writer, cfg *config.Config, broken error, file string) error {
	ctx, cancel := context.WithTimeout(ctx, bundlePatience)
	defer cancel()
	folder := "k3m-support-" + cfg.NodeName + "-" + time.Now().UTC().Format("20060102-150405")
	if file == "" {
		file = folder + ".tar.gz"
	}
	// Found out before anything is written, as all that is written goes by them.
	secrets, cluster, unknown := knownSecrets(ctx, cfg)
	bundle, err := support.Create(file, folder, redact.New(secrets))
	if err != nil {
		return err
	}
	c := &collector{Bundle: bundle, cfg: cfg, n: node{cfg.DataDir, cfg.RunDir}, cluster: cluster}
	if unknown != nil {
		c.Failed("cluster", unknown)
	}
	c.collect(ctx, broken)
	if err := c.Close(); err != nil {
		return err
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "wrote %s\n", abs)
	fmt.Fprintln(out, "secrets were taken out; names and addresses are in it: look at it before you give it away")
	return nil
}

func (c *collector) collect(ctx context.Context, broken error) {
	c.Add("version.txt", fullVersion())
	if broken != nil {
		c.Failed("configuration", broken)
	}
	c.configuration()
	c.check(ctx)
	c.server(ctx)
	c.logs(ctx)
	if c.cluster != nil {
		c.AddCluster(ctx, c.cluster)
	}
	c.AddHost(ctx)
}

// knownSecrets are the values that must not be in the bundle. Without those of the cluster,
// nothing of the cluster may be in it either.
func knownSecrets(ctx context.Context, cfg *config.Config) (secrets []string, cluster *rest.Config, err error) {
	secrets = append(secrets, cfg.Token, os.Getenv(config.Variable("token")))
	for _, file := range configurationFiles(cfg) {
		if text, err := os.ReadFile(file); err == nil {
			if values, err := redact.SecretsIn(text); err == nil {
				secrets = append(secrets, values...)
			}
		}
	}
	secrets = append(secrets, secretFiles(filepath.Join(cfg.DataDir, "server"))...)
	secrets = append(secrets, secretFiles(filepath.Join(cfg.DataDir, "agent"))...)
	if _, err := os.Stat(controlplane.AdminKubeconfig(cfg.DataDir)); errors.Is(err, fs.ErrNotExist) {
		return secrets, nil, nil
	}
	cluster, err = clientcmd.BuildConfigFromFlags("", controlplane.AdminKubeconfig(cfg.DataDir))
	if err != nil {
		return secrets, nil, err
	}
	cluster.Timeout = 20 * time.Second // an API that hangs is what a bundle is often made for
	values, err := support.ClusterSecrets(ctx, cluster)
	if err != nil {
		return secrets, nil, err
	}
	return append(secrets, values...), cluster, nil
}

// secretFiles are the contents of files in a data directory that are secrets by their name.
func secretFiles(dir string) []string {
	const (
		largest = 64 << 10
		deepest = 4 // below that are pods' volumes and images
	)
	var contents []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what can't be read can't be in the bundle
		}
		if e.IsDir() {
			if strings.Count(strings.TrimPrefix(path, dir), "/") >= deepest || e.Name() == "pods" {
				return fs.SkipDir
			}
			return nil
		}
		name := e.Name()
		if !redact.IsSecretName(name) && filepath.Ext(name) != ".key" {
			return nil
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > largest {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		if text, err := os.ReadFile(path); err == nil {
			contents = append(contents, string(text))
		}
		return nil
	})
	return contents
}

// configurationFiles are those that somebody wrote.
func configurationFiles(cfg *config.Config) []string {
	files := []string{cfg.File}
	if cfg.PrivateRegistry.Text != "" {
		files = append(files, cfg.PrivateRegistry.Text)
	}
	for _, pattern := range []string{filepath.Join(config.DropInDir(cfg.File), "*.yaml"), filepath.Join(filepath.Dir(cfg.File), "registries.yaml")} {
		if found, err := filepath.Glob(pattern); err == nil {
			files = append(files, found...)
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

func (c *collector) configuration() {
	for _, file := range configurationFiles(c.cfg) {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			c.Failed(file, err)
			continue
		}
		c.AddYAML("config/"+strings.TrimPrefix(strings.TrimPrefix(file, filepath.Dir(c.cfg.File)), "/"), text)
	}
	if text, err := os.ReadFile(filepath.Join(c.cfg.DataDir, "plugins", "plugins.lock")); err == nil {
		c.AddYAML("config/plugins.lock", text)
	}
}

func (c *collector) check(ctx context.Context) {
	p, err := newPlan(c.cfg)
	if err != nil {
		c.Failed("check", err)
		return
	}
	report := hostcheck.Run(ctx, p.hostOptions())
	var text strings.Builder
	if err := writeCheck(&text, report); err == nil {
		c.Add("check.txt", text.String())
	}
	c.addJSON("check.json", report)
}

// server writes what the server says of itself.
func (c *collector) server(ctx context.Context) {
	var report nodeReport
	if err := askAdmin(ctx, c.n.runDir, statusPath, &report); err != nil {
		c.Failed("status", err)
		return
	}
	var text strings.Builder
	if err := writeStatus(&text, report); err == nil {
		c.Add("status.txt", text.String())
	}
	c.addJSON("status.json", report)
	for name, path := range map[string]string{"components.json": componentsPath, "usage.json": usagePath} {
		var answer json.RawMessage
		if err := askAdmin(ctx, c.n.runDir, path, &answer); err != nil {
			c.Failed(name, err)
			continue
		}
		c.addJSON(name, answer)
	}
	for _, s := range report.Components {
		var block json.RawMessage
		if err := askAdmin(ctx, c.n.runDir, componentPath(s.ID, "config"), &block); err != nil {
			c.Failed(s.ID, err)
			continue
		}
		c.AddYAML("config/in-force/"+s.ID+".yaml", block)
	}
}

func (c *collector) addJSON(name string, value any) {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		c.Failed(name, err)
		return
	}
	c.Add(name, string(text))
}

// logs writes the last lines of each origin that the server keeps, the end of its log file, and
// what the service manager has.
func (c *collector) logs(ctx context.Context) {
	var origins []string
	if err := askAdmin(ctx, c.n.runDir, logsPath, &origins); err != nil {
		c.Failed("logs", err)
	}
	for _, origin := range origins {
		lines, err := openAdmin(ctx, c.n.runDir, http.MethodGet, logsPath+"/"+url.PathEscape(origin), nil)
		if err != nil {
			c.Failed("logs/"+origin, err)
			continue
		}
		text, err := io.ReadAll(io.LimitReader(lines, support.MaxFile))
		lines.Close()
		if err != nil {
			c.Failed("logs/"+origin, err)
		}
		c.AddLog("logs/"+origin+".log", string(text))
	}
	if file := c.cfg.LogFile; file != "" {
		if text, err := support.ReadEnd(file); err != nil {
			c.Failed(file, err)
		} else {
			c.AddLog("logs/"+filepath.Base(file), text)
		}
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		text, err := support.Output(ctx, "journalctl", "--unit=k3m", "--lines=5000", "--no-pager", "--output=short-iso")
		if err != nil {
			c.Failed("journal", err)
		} else {
			c.AddLog("logs/journal.log", text)
		}
	}
}

// The admin socket's lines of the log:
//
//	GET /v1/logs           who has written
//	GET /v1/logs/{origin}  the last lines of one of them
const logsPath = "/v1/logs"

func (s *server) logRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET "+logsPath, func(w http.ResponseWriter, _ *http.Request) { answerAdmin(w, s.logs.Origins()) })
	mux.HandleFunc("GET "+logsPath+"/{origin}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for line := range s.logs.Lines(r.Context(), r.PathValue("origin"), -1, false) {
			if _, err := w.Write(line); err != nil {
				return // the reader has gone
			}
		}
	})
}
