package text

import (
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ name, s, want string }{
		{"plain", "a b\n\tc", "a b\n\tc"},
		{"other scripts", "größe", "größe"},
		{"control characters", "a\x1b[2J", "a\uFFFD[2J"},
		{"no UTF-8", "a\xff", "a\uFFFD"},
		{"as long as may be", "12345678", "12345678"},
		{"a byte too long", "123456789", "12345678…"},
		{"cut inside a character", "1234567ß", "1234567…"},
		{"grown by replacing", "1234\x00\x00\x00\x00", "1234\uFFFD…"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Clean(c.s, 8); got != c.want {
				t.Errorf("Clean(%q) = %q, want %q", c.s, got, c.want)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b\xffß", 3)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 0 || most > 1<<16 {
			return
		}
		if got := Clean(s, most); len(got) > most+len(cutMark) || got != Clean(got, len(got)) || strings.ToValidUTF8(got, "") != got {
			t.Errorf("Clean(%q, %d) = %q", s, most, got)
		}
	})
}
