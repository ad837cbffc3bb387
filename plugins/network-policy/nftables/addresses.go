package nftables

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// watchAddresses tells of each pod address that is handed out (taken) or given back, from
// host-local's records below dir: <network>/<address>, a file for each. First it tells of
// those that are there. It returns when ctx ends, or with why it can't go on. The content of
// the files, the sandbox that has the address, is not for this user to read.
func watchAddresses(ctx context.Context, dir string, tell func(addr netip.Addr, taken bool), ready func()) error {
	watcher, err := fsnotify.NewBufferedWatcher(4096) // a burst of pods must not be lost
	if err != nil {
		return fmt.Errorf("watch the records of pod addresses: %w", err)
	}
	defer func() { _ = watcher.Close() }()
	if err := watcher.Add(dir); err != nil {
		return fmt.Errorf("watch the records of pod addresses in %s: %w", dir, err)
	}
	// What appears between Add and ReadDir is told twice, which does no harm.
	scan := func(network string) error {
		if err := watcher.Add(network); err != nil {
			return fmt.Errorf("watch the records of pod addresses in %s: %w", network, err)
		}
		entries, err := os.ReadDir(network)
		if err != nil {
			return fmt.Errorf("read the records of pod addresses: %w", err)
		}
		for _, entry := range entries {
			if addr, err := netip.ParseAddr(entry.Name()); err == nil {
				tell(addr, true)
			}
		}
		return nil
	}
	networks, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read the records of pod addresses: %w", err)
	}
	for _, network := range networks {
		if network.IsDir() {
			if err := scan(filepath.Join(dir, network.Name())); err != nil {
				return err
			}
		}
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.Errors:
			return fmt.Errorf("watch the records of pod addresses: %w", err)
		case event := <-watcher.Events:
			addr, err := netip.ParseAddr(filepath.Base(event.Name))
			isAddr := err == nil && filepath.Dir(event.Name) != filepath.Clean(dir)
			switch {
			case isAddr && event.Has(fsnotify.Create):
				tell(addr, true)
			case isAddr && event.Has(fsnotify.Remove|fsnotify.Rename):
				tell(addr, false)
			case !isAddr && event.Has(fsnotify.Create) && filepath.Dir(event.Name) == filepath.Clean(dir):
				if err := scan(event.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		}
	}
}
