package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrNoDist says that there is no dist/k3m to test.
var ErrNoDist = errors.New("there is no dist/k3m to test: run `make build`, or name one with K3M_DIST")

// Dist is the absolute path of the executable under test: K3M_DIST, or dist/k3m of this
// repository.
func Dist() (string, error) {
	path := os.Getenv("K3M_DIST")
	if path == "" {
		root, err := Root()
		if err != nil {
			return "", err
		}
		path = filepath.Join(root, "dist", "k3m")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return "", ErrNoDist
	}
	return path, nil
}

// Root is the folder of this repository: the nearest one above the working directory that
// has a go.mod and a test/harness.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			if _, err := os.Stat(filepath.Join(d, "test", "harness")); err == nil {
				return d, nil
			}
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find the repository: no go.mod above %s", dir)
		}
	}
}
