package localpath

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/sdk"
)

// Cleanup implements sdk.Cleaner: directories for volumes that hold none go. Volumes are
// users' data, and stay; nothing is removed that is not empty.
func (*plugin) Cleanup(_ context.Context, host *sdk.Host) error {
	facts := host.Facts()
	var cfg config
	if err := host.DecodeConfig(&cfg); err != nil {
		host.Logger().Warn("the configuration can't be read: looking at the default path only", "error", err)
		cfg = config{}
	}
	var errs []error
	for _, path := range cfg.pathsOf(facts.NodeName, facts.LocalStoragePath) {
		switch err := unix.Rmdir(path); {
		case err == nil, errors.Is(err, unix.ENOENT):
		case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
			host.Logger().Warn("volumes stay: they are users' data; remove them by hand when nobody needs them", "path", path)
		case errors.Is(err, unix.EBUSY): // a mount point, which is the operator's
		default:
			errs = append(errs, fmt.Errorf("remove the directory of volumes %s, which is empty: %w", path, err))
		}
	}
	return errors.Join(errs...)
}
