package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// imageCommand runs `k3m image <args…>`.
func imageCommand(ctx context.Context, args []string, l layout) error {
	root := &cobra.Command{
		Use:           "image",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "k3m image"},
		Short:         "Import and list this node's images",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(importCommand(l), listCommand(l))
	root.SetArgs(args)
	root.SetOut(os.Stdout)
	return root.ExecuteContext(ctx)
}

func importCommand(l layout) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Import image archives into this node",
		Long: `Import image archives into this node, for pods to use without a registry.

An archive is what "docker save", "podman save", "skopeo copy" or "crane pull" writes, in
the docker or the OCI format, plain or compressed with gzip or zstd. Archives that are put
into <data-dir>/agent/images are imported by themselves.`,
		Example: "  k3m image import app.tar db.tar.zst",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			return importFiles(cmd.Context(), cmd.OutOrStdout(), files, l)
		},
	}
}

func importFiles(ctx context.Context, out io.Writer, files []string, l layout) error {
	for _, name := range files { // all are looked at before one is imported
		if err := checkArchive(name); err != nil {
			return err
		}
	}
	if err := reach(ctx, l); err != nil {
		return err
	}
	c, err := client.New(l.socket, client.WithDefaultNamespace(namespace), client.WithDefaultPlatform(platforms.Default()))
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", l.socket, err)
	}
	defer hangUp(c)
	images := store{client: c} // the namespace's label names the snapshotter
	var failed []error
	for _, name := range files {
		names, err := importArchive(ctx, images, name)
		if err != nil {
			failed = append(failed, fmt.Errorf("import %s: %w", name, err))
			continue
		}
		for _, n := range names {
			fmt.Fprintln(out, n)
		}
	}
	return errors.Join(failed...)
}

func importArchive(ctx context.Context, images store, name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return images.load(ctx, f)
}

// checkArchive refuses what can't be an archive before anything is sent.
func checkArchive(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("import %s: there is no such file", name)
	}
	if err != nil {
		return fmt.Errorf("import %s: %w", name, errors.Unwrap(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("import %s: it is a directory; give the archive files in it", name)
	}
	stream, err := compression.DecompressStream(f)
	if err == nil {
		defer hangUp(stream)
		err = checkTar(stream)
	}
	if err != nil {
		return fmt.Errorf("import %s: it is no image archive: want a tar file, plain or compressed with gzip or zstd", name)
	}
	return nil
}

// checkTar looks for the magic of the first header.
func checkTar(r io.Reader) error {
	header := make([]byte, 512)
	if _, err := io.ReadFull(r, header); err != nil {
		return err
	}
	if string(header[257:262]) != "ustar" {
		return errors.New("no tar header")
	}
	return nil
}

// image is one line of `k3m image list`.
type image struct {
	Name   string `json:"name"`
	Tag    string `json:"tag"`
	Digest string `json:"digest,omitempty"`
	ID     string `json:"id"`
	Size   uint64 `json:"size"`
	Pinned bool   `json:"pinned"`
}

func listCommand(l layout) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List this node's images",
		Example: "  k3m image list\n  k3m image list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"table", "json", "yaml"}, format) {
				return fmt.Errorf("--output %q is unknown: want table, json or yaml", format)
			}
			found, err := listImages(cmd.Context(), l)
			if err != nil {
				return err
			}
			return printImages(cmd.OutOrStdout(), format, found)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json or yaml")
	return cmd
}

func listImages(ctx context.Context, l layout) ([]image, error) {
	if err := reach(ctx, l); err != nil {
		return nil, err
	}
	conn, err := dialCRI(l.socket)
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	answer, err := runtime.NewImageServiceClient(conn).ListImages(ctx, &runtime.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	found := []image{} // an empty list is [] in JSON
	for _, i := range answer.GetImages() {
		found = append(found, imageLines(i)...)
	}
	slices.SortFunc(found, func(a, b image) int {
		return strings.Compare(a.Name+":"+a.Tag+a.ID, b.Name+":"+b.Tag+b.ID)
	})
	return found, nil
}

// imageLines makes one line for each tag of an image, or one if it has none.
func imageLines(i *runtime.Image) []image {
	line := image{ID: i.GetId(), Size: i.GetSize(), Pinned: i.GetPinned()}
	digests := map[string]string{}
	for _, r := range i.GetRepoDigests() {
		name, digest, _ := strings.Cut(r, "@")
		digests[name] = digest
		line.Name, line.Digest = name, digest
	}
	var lines []image
	for _, r := range i.GetRepoTags() {
		named, err := reference.ParseNormalizedNamed(r)
		if err != nil {
			continue
		}
		line.Name, line.Tag = named.Name(), ""
		if tagged, ok := named.(reference.Tagged); ok {
			line.Tag = tagged.Tag()
		}
		if d, ok := digests[line.Name]; ok {
			line.Digest = d
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		lines = []image{line}
	}
	return lines
}

func printImages(out io.Writer, format string, found []image) error {
	switch format {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(found)
	case "yaml":
		raw, err := yaml.Marshal(found)
		if err != nil {
			return err
		}
		_, err = out.Write(raw)
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tTAG\tIMAGE ID\tSIZE\tPINNED")
	for _, i := range found {
		id := strings.TrimPrefix(i.ID, "sha256:")
		fmt.Fprintf(table, "%s\t%s\t%.12s\t%s\t%v\n", dash(i.Name), dash(i.Tag), id, size(i.Size), i.Pinned)
	}
	return table.Flush()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// size writes bytes in decimal units, as registries and crictl do.
func size(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.95 && unit < len(units)-1 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[unit])
}

// reach tells in plain words why nobody answers at the node's socket, if so.
func reach(ctx context.Context, l layout) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", l.socket)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("talk to the node at %s: it is for root only; use sudo", l.socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("no k3m node answers at %s: is it running, and with this --run-dir?", l.socket)
	}
	return err
}
