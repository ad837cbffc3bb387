// Package bundle is the format of the one-file distribution: an executable (the
// self-extractor) followed by a zstd-compressed tar archive and a trailer that says
// where the archive starts and what its digest is.
//
//	ELF │ tar.zst │ trailer: magic, archive length, archive SHA-256
//
// Pack writes it when the distribution is built; Open and Payload.Unpack read it at a
// start. The folder that Unpack makes, the bundle directory, is named by the digest and
// appears whole or not at all.
package bundle

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

var magic = [8]byte{'K', '3', 'M', 'B', 'N', 'D', 'L', '1'}

type trailer struct {
	Magic  [8]byte
	Length uint64
	Digest [sha256.Size]byte
}

var trailerSize = int64(binary.Size(trailer{}))

// scratchPrefix begins the names of unfinished directories.
const scratchPrefix = ".unpack-"

// ErrNoPayload tells that an executable carries no distribution.
var ErrNoPayload = errors.New("the executable carries no distribution; build one with `make build`")

// Payload is the archive inside an open distribution.
type Payload struct {
	file   *os.File
	start  int64
	length int64
	digest [sha256.Size]byte
}

// Open finds the payload of the distribution at path. The caller closes it.
func Open(path string) (*Payload, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p, err := find(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func find(f *os.File) (*Payload, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < trailerSize {
		return nil, ErrNoPayload
	}
	var t trailer
	if err := binary.Read(io.NewSectionReader(f, info.Size()-trailerSize, trailerSize), binary.LittleEndian, &t); err != nil {
		return nil, err
	}
	if t.Magic != magic {
		return nil, ErrNoPayload
	}
	length := int64(t.Length)
	if length <= 0 || length > info.Size()-trailerSize {
		return nil, fmt.Errorf("%s is damaged: its trailer names %d bytes of payload; copy the file again", f.Name(), t.Length)
	}
	return &Payload{file: f, start: info.Size() - trailerSize - length, length: length, digest: t.Digest}, nil
}

// Close closes the distribution's file.
func (p *Payload) Close() error { return p.file.Close() }

// Digest names the bundle directory.
func (p *Payload) Digest() string { return hex.EncodeToString(p.digest[:16]) }

// Unpack makes the bundle directory below parent unless it is there, and returns its
// path. Several processes may do so at once. The directory is complete when it has its
// name: the archive is unpacked beside it, compared with its digest, and renamed.
func (p *Payload) Unpack(parent string) (string, error) {
	dir := filepath.Join(parent, p.Digest())
	if _, err := os.Lstat(dir); err == nil {
		return dir, ownAlone(parent, dir, filepath.Join(dir, "bin"), filepath.Join(dir, "bin", "k3m"))
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	if err := ownAlone(parent); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(parent, scratchPrefix)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	hash := sha256.New()
	source := io.TeeReader(io.NewSectionReader(p.file, p.start, p.length), hash)
	if err := untar(bufio.NewReaderSize(source, 1<<20), scratch); err != nil {
		return "", fmt.Errorf("unpack to %s: %w", parent, err)
	}
	if _, err := io.Copy(io.Discard, source); err != nil {
		return "", err
	}
	if !bytes.Equal(hash.Sum(nil), p.digest[:]) {
		return "", fmt.Errorf("%s is damaged: its payload has another digest than its trailer; copy the file again", p.file.Name())
	}
	if err := os.Chmod(scratch, 0o755); err != nil {
		return "", err
	}
	// What was written must be on the disk before the name says that it is whole.
	if err := syncFS(scratch); err != nil {
		return "", err
	}
	if err := os.Rename(scratch, dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return dir, nil // another process was faster
		}
		return "", err
	}
	return dir, nil
}

// ownAlone refuses paths that another user made or can change: the digest is known to
// everybody, so its directory may be somebody's trap.
func ownAlone(paths ...string) error {
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t).Uid
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("%s is a symbolic link; remove it, or choose another --data-dir", path)
		case owner != 0 && int(owner) != os.Geteuid():
			return fmt.Errorf("%s belongs to another user (%d); remove it, or choose another --data-dir", path, owner)
		case info.Mode().Perm()&0o022 != 0:
			return fmt.Errorf("%s can be changed by other users; `chmod go-w` it, or choose another --data-dir", path)
		}
	}
	return nil
}

// isBundle tells the name of a bundle directory: the digest that Payload.Digest gives.
var isBundle = regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString

// unpackPatience is how long an unpacking may take before what it left is taken for a dead
// process's.
const unpackPatience = time.Hour

// Prune removes from parent the bundle directories of other versions, and what unpackings
// that were killed left; anything else in it stays. keep is a bundle directory; nothing happens when it does not lie
// in parent. Processes that run from a removed directory go on.
func Prune(parent, keep string) error {
	if filepath.Dir(keep) != filepath.Clean(parent) {
		return nil
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		stale := isBundle(entry.Name())
		if strings.HasPrefix(entry.Name(), scratchPrefix) {
			info, err := entry.Info()
			stale = err == nil && time.Since(info.ModTime()) >= unpackPatience
		}
		if stale && entry.Name() != filepath.Base(keep) {
			errs = append(errs, os.RemoveAll(filepath.Join(parent, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// RemoveAll removes from parent every bundle directory and unfinished one, and parent if
// nothing else is in it.
func RemoveAll(parent string) error {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, entry := range entries {
		if isBundle(entry.Name()) || strings.HasPrefix(entry.Name(), scratchPrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(parent, entry.Name())))
		}
	}
	if err := os.Remove(parent); !errors.Is(err, unix.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

func untar(r io.Reader, dir string) error {
	z, err := zstd.NewReader(r)
	if err != nil {
		return err
	}
	defer z.Close()
	archive := tar.NewReader(z)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(header.Name) || header.Typeflag != tar.TypeReg {
			return fmt.Errorf("unexpected entry %q", header.Name)
		}
		if err := writeFile(filepath.Join(dir, header.Name), archive, header); err != nil {
			return err
		}
	}
}

func writeFile(name string, r io.Reader, header *tar.Header) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(header.Mode)&0o755)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, r, header.Size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Pack writes a distribution to out: the self-extractor, then every regular file below
// dir. The same input gives the same bytes: names are sorted, times and owners left out.
func Pack(out io.Writer, extractor io.Reader, dir string, level zstd.EncoderLevel) error {
	if _, err := io.Copy(out, extractor); err != nil {
		return err
	}
	hash := sha256.New()
	counted := &counter{w: io.MultiWriter(out, hash)}
	z, err := zstd.NewWriter(counted, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	if err := tarDir(z, dir); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	t := trailer{Magic: magic, Length: uint64(counted.n)}
	copy(t.Digest[:], hash.Sum(nil))
	return binary.Write(out, binary.LittleEndian, t)
}

func tarDir(w io.Writer, dir string) error {
	archive := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", name)
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		if err := archive.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: filepath.ToSlash(relative), Mode: mode, Size: info.Size(), Format: tar.FormatPAX,
		}); err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(archive, f)
		return err
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Dir is the bundle directory of the running executable, which lies in its bin folder.
func Dir() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	exe = strings.TrimSuffix(exe, " (deleted)")
	dir := filepath.Dir(filepath.Dir(exe))
	if _, err := os.Stat(filepath.Join(dir, "plugins", "catalog.json")); err != nil {
		return "", fmt.Errorf("%s doesn't lie in an unpacked distribution; start dist/k3m: %w", exe, err)
	}
	return dir, nil
}
