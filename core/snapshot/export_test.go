package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// Rewrite changes what a snapshot says of itself.
func Rewrite(file string, change func(*Meta)) (err error) {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := openArchive(in)
	if err != nil {
		return err
	}
	defer r.close()
	sealed, err := r.bootstrap()
	if err != nil {
		return err
	}
	database := filepath.Join(filepath.Dir(file), partial+"rewrite")
	defer func() { err = errors.Join(err, os.Remove(database)) }()
	if err := r.database(database); err != nil {
		return err
	}
	change(&r.meta)
	if err := os.Remove(file); err != nil {
		return err
	}
	return pack(file, r.meta, sealed, database)
}

// Specimen is a snapshot of rubbish.
func Specimen() []byte {
	var out bytes.Buffer
	_ = writeArchive(&out, Meta{Format: format, Created: time.Unix(0, 0), DatabaseBytes: 3}, []byte("sealed"), bytes.NewReader([]byte("abc")))
	return out.Bytes()
}
