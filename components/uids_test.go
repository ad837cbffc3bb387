package components

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// table makes a uidTable on a host with the given files.
func table(t *testing.T, passwd, group string) *uidTable {
	t.Helper()
	dir := t.TempDir()
	u := newUIDTable(dir)
	if err := os.MkdirAll(filepath.Dir(u.path), 0o755); err != nil {
		t.Fatal(err)
	}
	u.passwd, u.group = filepath.Join(dir, "passwd"), filepath.Join(dir, "group")
	for path, text := range map[string]string{u.passwd: passwd, u.group: group} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func TestUIDsAreKeptAndDistinct(t *testing.T) {
	u := table(t, "root:x:0:0:root:/root:/bin/sh\n", "root:x:0:\n")
	seen := map[int]string{}
	for i := range 50 {
		id := fmt.Sprintf("addon.c%d", i)
		uid, err := u.uid(id)
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := seen[uid]; twice || uid < firstUID || uid >= firstUID+countUID {
			t.Errorf("%s has user id %d, as %q", id, uid, other)
		}
		seen[uid] = id
	}
	for uid, id := range seen {
		if again, err := u.uid(id); err != nil || again != uid {
			t.Errorf("%s has user id %d, %v; it had %d", id, again, err, uid)
		}
	}
}

func TestUIDsOfTheHostAreLeftAlone(t *testing.T) {
	var passwd, group strings.Builder
	free := firstUID + 77
	for uid := firstUID; uid < firstUID+countUID; uid++ {
		switch {
		case uid == free:
		case uid%2 == 0:
			fmt.Fprintf(&passwd, "user%d:x:%d:100::/:/bin/false\n", uid, uid)
		default:
			fmt.Fprintf(&group, "group%d:x:%d:\n", uid, uid)
		}
	}
	u := table(t, passwd.String(), group.String())
	if uid, err := u.uid("addon.one"); err != nil || uid != free {
		t.Errorf("user id %d, %v; want %d", uid, err, free)
	}
	if _, err := u.uid("addon.two"); err == nil || !strings.Contains(err.Error(), "are taken") {
		t.Errorf("error %v", err)
	}
	// The host takes the id of a component that has files.
	if err := os.WriteFile(u.passwd, fmt.Appendf(nil, "mallory:x:%d:1::/:/bin/sh\n", free), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := u.uid("addon.one"); err == nil || !strings.Contains(err.Error(), `the host has given to "mallory" since`) {
		t.Errorf("error %v", err)
	}
}

func TestTamperedUIDTable(t *testing.T) {
	for name, text := range map[string]string{
		"root": `{"addon.a":0}`, "twice": `{"addon.a":60801,"addon.b":60801}`, "no JSON": `addon.a`,
	} {
		t.Run(name, func(t *testing.T) {
			u := table(t, "", "")
			if err := os.WriteFile(u.path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if uid, err := u.uid("addon.a"); err == nil {
				t.Errorf("user id %d", uid)
			}
		})
	}
}

func TestSocketPathTooLong(t *testing.T) {
	_, err := makeDirs(t.TempDir(), "/"+strings.Repeat("r", 80), "addon.a", -1)
	if err == nil || !strings.Contains(err.Error(), "choose a shorter --run-dir") {
		t.Errorf("error %v", err)
	}
}
