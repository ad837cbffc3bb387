package localpath

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestSizesOfKernelStructures: a call with a structure of another size would write beside
// it. The ioctls carry the size in their number.
func TestSizesOfKernelStructures(t *testing.T) {
	for name, size := range map[string][2]uintptr{
		"struct if_dqblk":       {unsafe.Sizeof(dqblk{}), 72},
		"struct fs_quota_statv": {unsafe.Sizeof(statv{}), 160},
		"struct fsxattr":        {unsafe.Sizeof(fsxattr{}), getAttributes >> 16 & 0x3fff},
	} {
		if size[0] != size[1] {
			t.Errorf("%s has %d bytes, want %d", name, size[0], size[1])
		}
	}
}

// quotaBase is a base on a file system with project quotas in force, made in a file.
func quotaBase(t *testing.T) *base {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("needs mkfs.ext4")
	}
	image, at := filepath.Join(t.TempDir(), "image"), t.TempDir()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 64<<20))
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop,prjquota", image, at).CombinedOutput(); err != nil {
		t.Skipf("this kernel can't mount ext4 with project quotas from a file (CONFIG_QFMT_V2, loop devices): %s", out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(at, 0)) })
	b := &base{path: filepath.Join(at, "storage")}
	must(t, b.prepare())
	dir, err := b.open()
	must(t, err)
	defer dir.Close()
	if err := (kernelQuotas{}).serve(dir); err != nil {
		t.Skipf("this kernel has no project quotas: %v", err)
	}
	return b
}

func TestQuotaStopsWriter(t *testing.T) {
	b := quotaBase(t)
	q := kernelQuotas{}
	staged, err := b.stage("pvc-1")
	must(t, err)
	must(t, q.limit(staged, "pvc-1", 8<<20))
	staged.Close()
	must(t, b.publish("pvc-1", "team/v"))
	dir := filepath.Join(b.path, "team/v")

	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if size := int64(st.Blocks) * st.Bsize; size != 8<<20 {
		t.Errorf("df says %d", size)
	}
	full := errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub", "f"), make([]byte, 9<<20), 0o600))
	if !errors.Is(full, unix.EDQUOT) && !errors.Is(full, unix.ENOSPC) {
		t.Errorf("wrote past the size: %v", full)
	}
	f, err := b.volume("team/v")
	must(t, err)
	defer f.Close()
	project, err := q.project(f)
	must(t, err)
	must(t, q.limit(f, "pvc-1", 16<<20))
	if again, err := q.project(f); err != nil || again != project || project < firstProject {
		t.Errorf("project %d, then %d, %v", project, again, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "sub", "f"), make([]byte, 9<<20), 0o600))
	must(t, b.remove(t.Context(), "team/v"))
	root, err := b.open()
	must(t, err)
	defer root.Close()
	must(t, q.forget(root, project))
	if free, err := freeProject(root, "pvc-1"); err != nil || free != project {
		t.Errorf("the number is not free again: %d, %v", free, err)
	}
}

// TestWithoutQuotas: where there are none, that is said, and nothing fails.
func TestWithoutQuotas(t *testing.T) {
	dir, err := os.Open("/proc")
	must(t, err)
	defer dir.Close()
	if err := (kernelQuotas{}).serve(dir); err == nil {
		t.Error("/proc has project quotas")
	} else {
		t.Log(err)
	}
}
