package components

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Components that don't ask for root get user ids of this range, one each, with a group
// of the same number. systemd's UIDS-GIDS.md leaves 60706 to 61183 unused; below are the
// users that login.defs makes (to 60000) and systemd-homed's, above DynamicUser's
// (61184 to 65519). The ids of pods with user namespaces begin at 65536.
const (
	firstUID = 60800
	countUID = 256
	// inspectUID is what a plugin runs as while it is asked who it is: the same for all,
	// with nothing that belongs to it.
	inspectUID = firstUID + countUID
)

// uidTable gives components their user ids and keeps them: files outlive processes. The
// table belongs to one data directory. Safe for use by several goroutines.
type uidTable struct {
	path string
	// passwd and group are the host's own, "/etc/passwd" and "/etc/group".
	passwd, group string

	mu sync.Mutex
}

func newUIDTable(dataDir string) *uidTable {
	return &uidTable{path: filepath.Join(dataDir, "components", "uids.json"), passwd: "/etc/passwd", group: "/etc/group"}
}

// uid returns the component's user id. The first time it picks one that neither another
// component nor the host has. Where the search begins depends on the data directory and
// the component, so that nodes that share a host seldom share user ids.
func (t *uidTable) uid(id string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	table, err := t.read()
	if err != nil {
		return 0, fmt.Errorf("find a user id for component %s: %w", id, err)
	}
	host, err := t.hostIDs()
	if err != nil {
		return 0, fmt.Errorf("find a user id for component %s: %w", id, err)
	}
	if uid, ok := table[id]; ok {
		if name, taken := host[uid]; taken {
			return 0, fmt.Errorf("component %s has user id %d, which the host has given to %q since: give that user or group another id, or remove the component's entry from %s and chown its state directory", id, uid, name, t.path)
		}
		return uid, nil
	}
	used := map[int]bool{}
	for _, uid := range table {
		used[uid] = true
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "%s\x00%s", t.path, id)
	start := int(h.Sum32() % countUID)
	for i := range countUID {
		uid := firstUID + (start+i)%countUID
		if _, taken := host[uid]; taken || used[uid] {
			continue
		}
		table[id] = uid
		if err := t.write(table); err != nil {
			return 0, fmt.Errorf("keep the user id of component %s: %w", id, err)
		}
		return uid, nil
	}
	return 0, fmt.Errorf("find a user id for component %s: all of %d to %d are taken", id, firstUID, firstUID+countUID-1)
}

func (t *uidTable) read() (map[string]int, error) {
	data, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]int{}, nil
	}
	if err != nil {
		return nil, err
	}
	table := map[string]int{}
	if err := json.Unmarshal(data, &table); err != nil {
		return nil, fmt.Errorf("%s: %w", t.path, err)
	}
	owners := map[int]string{}
	for id, uid := range table {
		// A table that was tampered with must not make anyone root.
		if uid < firstUID || uid >= firstUID+countUID {
			return nil, fmt.Errorf("%s: user id %d of %s is not between %d and %d", t.path, uid, id, firstUID, firstUID+countUID-1)
		}
		if other, twice := owners[uid]; twice {
			return nil, fmt.Errorf("%s: %s and %s have the same user id %d", t.path, id, other, uid)
		}
		owners[uid] = id
	}
	return table, nil
}

func (t *uidTable) write(table map[string]int) error {
	data, err := json.MarshalIndent(table, "", "  ")
	if err != nil {
		return err
	}
	return writeFileAtomic(t.path, append(data, '\n'), 0o600)
}

// hostIDs are the ids of the host's users and groups, with their names.
func (t *uidTable) hostIDs() (map[int]string, error) {
	ids := map[int]string{}
	for _, path := range []string{t.passwd, t.group} {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			// passwd(5) and group(5): name:password:id:…
			fields := strings.Split(lines.Text(), ":")
			if len(fields) < 3 {
				continue
			}
			if id, err := strconv.Atoi(fields[2]); err == nil {
				ids[id] = fields[0]
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return ids, nil
}

// writeFileAtomic replaces path so that it holds either the old or the new content,
// whatever happens meanwhile.
func writeFileAtomic(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
