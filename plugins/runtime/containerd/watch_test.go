package containerd

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// event is one record as the kernel writes it.
func event(mask uint32, name string) []byte {
	length := 0
	if name != "" {
		length = (len(name)/16 + 1) * 16 // the kernel pads names with zeros
	}
	raw := make([]byte, unix.SizeofInotifyEvent+length)
	binary.NativeEndian.PutUint32(raw[4:], mask)
	binary.NativeEndian.PutUint32(raw[12:], uint32(length))
	copy(raw[unix.SizeofInotifyEvent:], name)
	return raw
}

func TestParseEvents(t *testing.T) {
	for _, c := range []struct {
		name string
		raw  []byte
		want []arrival
		err  error
	}{
		{"nothing", nil, nil, nil},
		{"a copy ended", event(unix.IN_CLOSE_WRITE, "a.tar"), []arrival{{name: "a.tar", closed: true}}, nil},
		{"a link was made", event(unix.IN_CREATE, "a.tar"), []arrival{{name: "a.tar", linked: true}}, nil},
		{"a directory was made", event(unix.IN_CREATE|unix.IN_ISDIR, "sub"), []arrival{{name: "sub", linked: true, dir: true}}, nil},
		{"a file went", event(unix.IN_DELETE, "a.tar"), []arrival{{name: "a.tar", removed: true}}, nil},
		{"events were lost", event(unix.IN_Q_OVERFLOW, ""), []arrival{{}}, nil},
		{"two at once", slices.Concat(event(unix.IN_MOVED_TO, "a.tar"), event(unix.IN_CLOSE_WRITE, "b.tar")), []arrival{{name: "a.tar"}, {name: "b.tar", closed: true}}, nil},
		{"the directory went", slices.Concat(event(unix.IN_CLOSE_WRITE, "a.tar"), event(unix.IN_DELETE_SELF, "")), []arrival{{name: "a.tar", closed: true}}, errDirectoryGone},
		{"half a record", event(unix.IN_CLOSE_WRITE, "a.tar")[:20], nil, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseEvents(c.raw)
			if !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
				t.Errorf("got %+v, %v; want %+v, %v", got, err, c.want, c.err)
			}
		})
	}
}

func FuzzParseEvents(f *testing.F) {
	f.Add(event(unix.IN_CLOSE_WRITE, "a.tar"))
	f.Add(slices.Concat(event(unix.IN_CREATE, "b"), event(unix.IN_Q_OVERFLOW, "")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		arrivals, err := parseEvents(raw)
		if len(arrivals)*unix.SizeofInotifyEvent > len(raw) {
			t.Errorf("%d arrivals in %d bytes", len(arrivals), len(raw))
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errDirectoryGone) {
			t.Error(err)
		}
	})
}
