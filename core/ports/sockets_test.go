package ports

import (
	"log/slog"
	"strings"
	"testing"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

const header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func TestParseTable(t *testing.T) {
	const (
		listener    = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n"
		listener6   = "   1: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0     0        0 4712 1 0\n"
		established = "   2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n"
	)
	for name, tc := range map[string]struct {
		table string
		first bool
		want  string
		err   string
	}{
		"nothing":                  {table: header},
		"no header":                {table: ""},
		"both families":            {table: header + listener + listener6, want: "127.0.0.1:8080 127.0.0.1:80"},
		"others between":           {table: header + established + listener, want: "127.0.0.1:8080"},
		"no further than needed":   {table: header + listener + established + listener6, first: true, want: "127.0.0.1:8080"},
		"short line":               {table: header + "0: 0100007F:1F90\n", err: "line 2 has 2 fields"},
		"no address":               {table: header + strings.Replace(listener, "0100007F:1F90", "localhost:80", 1), err: `"localhost:80" is not an address`},
		"an address of other size": {table: header + strings.Replace(listener, "0100007F:1F90", "01007F:1F90", 1), err: "is not an address"},
		"no port":                  {table: header + strings.Replace(listener, "0100007F:1F90", "0100007F:FFFFF", 1), err: "is not an address and port"},
		"no inode":                 {table: header + strings.Replace(listener, "4711", "x", 1), err: "inode"},
	} {
		t.Run(name, func(t *testing.T) {
			sockets, err := parseTable(strings.NewReader(tc.table), stateListen, tc.first)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			var got []string
			for _, s := range sockets {
				got = append(got, s.local.String())
			}
			if err != nil || strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(header + "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n")
	f.Fuzz(func(t *testing.T, table string) {
		sockets, err := parseTable(strings.NewReader(table), stateListen, false)
		for _, s := range sockets {
			if err == nil && !s.local.IsValid() {
				t.Errorf("%v", s)
			}
		}
	})
}
