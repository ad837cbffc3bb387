// Command k3m-pack builds the one-file distribution out of a folder:
//
//	k3m-pack -extractor build/k3m-bundle -dir build/bundle -o dist/k3m
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/k3m-io/k3m/cmd/internal/bundle"
)

func main() {
	extractor := flag.String("extractor", "", "the self-extractor's executable")
	dir := flag.String("dir", "", "the folder to carry")
	out := flag.String("o", "", "the distribution to write")
	flag.Parse()
	if err := pack(*extractor, *dir, *out); err != nil {
		fmt.Fprintln(os.Stderr, "k3m-pack:", err)
		os.Exit(1)
	}
}

func pack(extractor, dir, out string) error {
	front, err := os.Open(extractor)
	if err != nil {
		return err
	}
	defer front.Close()
	// Write beside it and rename: a running distribution can't be written over.
	f, err := os.CreateTemp(".", ".k3m-pack-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := bundle.Pack(f, front, dir, zstd.SpeedDefault); err != nil {
		return err
	}
	if err := f.Chmod(0o755); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}
