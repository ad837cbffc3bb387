package components

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckTrusted(t *testing.T) {
	tests := map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string // in the error; "" for none
	}{
		"a good file":           {func(*testing.T, string) {}, ""},
		"a writable file":       {chmod("a/b/file", 0o766), "file DIR/a/b/file can be written by other users (mode 0766)"},
		"a file of the group":   {chmod("a/b/file", 0o775), "`chmod go-w DIR/a/b/file`"},
		"a writable directory":  {chmod("a/b", 0o777), "directory DIR/a/b can be written by other users (mode 0777)"},
		"a writable parent":     {chmod("a", 0o777), "directory DIR/a can be written"},
		"a sticky parent":       {chmod("a", 0o777|os.ModeSticky), ""},
		"another's file":        {chown("a/b/file", 12345), "file DIR/a/b/file belongs to user 12345"},
		"another's directory":   {chown("a", 12345), "directory DIR/a belongs to user 12345"},
		"a link to a good file": {link("a/b/file", "../c/target"), ""},
		"a link into a bad directory": {func(t *testing.T, dir string) {
			link("a/b/file", "../c/target")(t, dir)
			chmod("a/c", 0o777)(t, dir)
		}, "directory DIR/a/c can be written"},
		"a link by an absolute path": {func(t *testing.T, dir string) {
			link("a/b/file", filepath.Join(dir, "a/c/target"))(t, dir)
			chmod("a/c/target", 0o666)(t, dir)
		}, "file DIR/a/c/target can be written"},
		"a circle of links": {link("a/b/file", "file"), "too many symbolic links"},
		"no file":           {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "a/b/file")) }, "no such file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"a/b/file", "a/c/target"} {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, path), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			tt.spoil(t, dir)
			real, err := checkTrusted(filepath.Join(dir, "a/b/file"))
			switch want := strings.ReplaceAll(tt.want, "DIR", dir); {
			case want == "" && err != nil:
				t.Error(err)
			case want == "":
				if resolved, _ := filepath.EvalSymlinks(filepath.Join(dir, "a/b/file")); real != resolved {
					t.Errorf("real path %s, want %s", real, resolved)
				}
			case err == nil || !strings.Contains(err.Error(), want):
				t.Errorf("error %v, want one with %q", err, want)
			}
		})
	}
}

func chmod(path string, mode os.FileMode) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
			t.Fatal(err)
		}
	}
}

func chown(path string, uid int) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		needRoot(t)
		if err := os.Chown(filepath.Join(dir, path), uid, uid); err != nil {
			t.Fatal(err)
		}
	}
}

func link(path, target string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, path)
		os.Remove(path)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
}
