package snapshot

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
)

const (
	format = 1

	metaEntry      = "snapshot.json"
	bootstrapEntry = "bootstrap"
	databaseEntry  = "state.db"

	maxMeta      = 64 << 10
	maxBootstrap = 1 << 20
	// maxWindow bounds what a decoder keeps in memory, whatever the file asks for.
	maxWindow = 64 << 20
)

// writeArchive writes a snapshot's parts.
func writeArchive(to io.Writer, meta Meta, bootstrap []byte, database io.Reader) error {
	text, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return err
	}
	packed, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	archive := tar.NewWriter(packed)
	add := func(name string, size int64, content io.Reader) error {
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: meta.Created, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	}
	return errors.Join(
		add(metaEntry, int64(len(text)), bytesReader(text)),
		add(bootstrapEntry, int64(len(bootstrap)), bytesReader(bootstrap)),
		add(databaseEntry, meta.DatabaseBytes, database),
		archive.Close(), packed.Close(),
	)
}

// reader reads a snapshot from its start to its end.
type reader struct {
	packed  *zstd.Decoder
	archive *tar.Reader
	meta    Meta
}

// openArchive reads a snapshot's description. The caller closes the reader, and from.
func openArchive(from io.Reader) (*reader, error) {
	packed, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, err
	}
	r := &reader{packed: packed, archive: tar.NewReader(packed)}
	text, err := r.small(metaEntry, maxMeta)
	if err == nil {
		err = json.Unmarshal(text, &r.meta)
	}
	if err == nil && r.meta.Format != format {
		err = fmt.Errorf("it has format %d, and this k3m reads format %d: use the k3m that made it", r.meta.Format, format)
	}
	if err != nil {
		packed.Close()
		return nil, fmt.Errorf("not a snapshot: %w", err)
	}
	return r, nil
}

func (r *reader) close() { r.packed.Close() }

// next goes to an entry, which must be the next one.
func (r *reader) next(name string) (int64, error) {
	header, err := r.archive.Next()
	if errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%s is missing", name)
	}
	if err != nil {
		return 0, err
	}
	if header.Name != name || header.Typeflag != tar.TypeReg {
		return 0, fmt.Errorf("%q stands where %s should", header.Name, name)
	}
	return header.Size, nil
}

func (r *reader) small(name string, limit int64) ([]byte, error) {
	size, err := r.next(name)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return io.ReadAll(r.archive)
}

// bootstrap reads the sealed keys.
func (r *reader) bootstrap() ([]byte, error) { return r.small(bootstrapEntry, maxBootstrap) }

// database writes the datastore into a new file, and checks that it is what was saved.
func (r *reader) database(to string) (err error) {
	size, err := r.next(databaseEntry)
	if err != nil {
		return err
	}
	if size != r.meta.DatabaseBytes {
		return fmt.Errorf("its datastore has %d bytes instead of %d", size, r.meta.DatabaseBytes)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, sum), r.archive); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != r.meta.DatabaseSHA256 {
		return errors.New("its datastore is not what was saved: the checksums differ")
	}
	// To the end, where the archive's own checksum is.
	if _, err := r.archive.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("there is more in it than there should be: %w", err)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(r.packed, 1<<20)); err != nil {
		return err
	}
	return out.Sync()
}
