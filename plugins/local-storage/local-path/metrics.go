package localpath

import (
	"context"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// WriteMetrics implements sdk.MetricsWriter.
func (p *plugin) WriteMetrics(_ context.Context, out io.Writer) error {
	w := p.running.Load()
	if w == nil {
		return nil
	}
	var text strings.Builder
	gauge := func(name, help string) { fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name) }

	count, claimed := map[string]int{}, map[string]int64{}
	for _, object := range w.volumes.List() {
		volume := object.(*corev1.PersistentVolume)
		capacity := volume.Spec.Capacity[corev1.ResourceStorage]
		for _, b := range w.bases {
			if volume.Spec.Local != nil && within(b.path, volume.Spec.Local.Path) {
				count[b.path]++
				claimed[b.path] += capacity.Value()
			}
		}
	}
	gauge("k3m_local_path_volumes", "Volumes in a directory for volumes.")
	for _, b := range w.bases {
		fmt.Fprintf(&text, "k3m_local_path_volumes{path=%q} %d\n", b.path, count[b.path])
	}
	gauge("k3m_local_path_claimed_bytes", "Sum of the sizes of these volumes.")
	for _, b := range w.bases {
		fmt.Fprintf(&text, "k3m_local_path_claimed_bytes{path=%q} %d\n", b.path, claimed[b.path])
	}
	var free, size strings.Builder
	for _, b := range w.bases {
		if f, s, err := b.free(); err == nil {
			fmt.Fprintf(&free, "k3m_local_path_free_bytes{path=%q} %d\n", b.path, f)
			fmt.Fprintf(&size, "k3m_local_path_size_bytes{path=%q} %d\n", b.path, s)
		}
	}
	gauge("k3m_local_path_free_bytes", "Free space of the file system that it is on.")
	text.WriteString(free.String())
	gauge("k3m_local_path_size_bytes", "Size of that file system.")
	text.WriteString(size.String())
	gauge("k3m_local_path_unbound_directories", "Directories that wait for their PersistentVolume.")
	fmt.Fprintf(&text, "k3m_local_path_unbound_directories %d\n", len(w.ledger.names()))
	_, err := io.WriteString(out, text.String())
	return err
}
