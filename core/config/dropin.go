package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxDropIns bounds the files beside the configuration file.
const maxDropIns = 256

// DropInDir is the folder of a configuration file's drop-ins: *.yaml, which are read after it
// in the order of their names.
func DropInDir(file string) string { return file + ".d" }

// readFiles reads a configuration file and its drop-ins, and merges them: what is read later
// is stronger, key by key; `key+:` adds to the list of those before. A file that was not
// asked for by name may be missing.
func readFiles(file string, mustExist bool, overlay map[string][]byte) (fileValues, error) {
	merged, err := readFile(file, mustExist, overlay)
	if err != nil {
		return merged, err
	}
	if len(merged.appended) > 0 { // there is nothing weaker to add to
		merged.add()
	}
	names, err := dropIns(file, overlay)
	if err != nil {
		return merged, err
	}
	for _, name := range names {
		stronger, err := readFile(name, false, overlay)
		if err != nil {
			return merged, err
		}
		merged.merge(stronger)
	}
	return merged, nil
}

func readFile(name string, mustExist bool, overlay map[string][]byte) (fileValues, error) {
	text, over := overlay[name]
	switch {
	case over && text == nil:
		return newFileValues(), nil
	case over:
		return parseFile(name, text)
	}
	text, err := readSmall(name, maxFile)
	if errors.Is(err, fs.ErrNotExist) && !mustExist {
		return newFileValues(), nil
	}
	if err != nil {
		source := name
		if mustExist {
			source = "--config"
		}
		return newFileValues(), &Error{source, fmt.Sprintf("read the configuration: %v", err)}
	}
	return parseFile(name, text)
}

// dropIns lists the drop-ins of a file, those in overlay included, in their order.
func dropIns(file string, overlay map[string][]byte) ([]string, error) {
	dir := DropInDir(file)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{dir, fmt.Sprintf("read the drop-ins: %v", err)}
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Join(dir, e.Name()))
	}
	for name := range overlay {
		if filepath.Dir(name) == dir {
			names = append(names, name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return filepath.Ext(name) != ".yaml" || strings.HasPrefix(filepath.Base(name), ".")
	})
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxDropIns {
		return nil, &Error{dir, fmt.Sprintf("holds %d files, of which at most %d are read", len(names), maxDropIns)}
	}
	return names, nil
}

// merge lays a stronger file over f.
func (f *fileValues) merge(stronger fileValues) {
	for name, values := range stronger.values {
		f.values[name] = values
		// A token and a token-file replace each other: see shadowed.
		if twin := twins[name]; twin != "" {
			delete(f.values, twin)
		}
	}
	f.appended = stronger.appended
	f.add()
	for id, b := range stronger.components {
		if weaker, ok := f.components[id]; ok {
			weaker.merge(b)
		} else {
			f.components[id] = b
		}
	}
}

// add adds what `key+:` says to the lists.
func (f *fileValues) add() {
	for name, values := range f.appended {
		f.values[name] = slices.Concat(f.values[name], values)
	}
	f.appended = map[string][]Value{}
}
