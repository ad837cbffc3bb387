package config

import (
	"os"
	"path/filepath"
	"strings"
)

// DataDir is the data directory that a command line means, found without reading the
// rest of it: the self-extractor and the sub-commands need no more. It follows Load's
// precedence; what it can't read, Load refuses later in full words.
func DataDir(args []string, lookup func(string) (string, bool)) string {
	return locate("data-dir", DefaultDataDir, args, lookup)
}

// RunDir is DataDir's twin for the directory of sockets.
func RunDir(args []string, lookup func(string) (string, bool)) string {
	return locate("run-dir", DefaultRunDir, args, lookup)
}

// File is DataDir's twin for the configuration file.
func File(args []string, lookup func(string) (string, bool)) string {
	if file := lastFlag(args, "config"); file != "" {
		return absolute(file)
	}
	if v, ok := lookup(Variable("config")); ok && v != "" {
		return absolute(v)
	}
	return DefaultFile
}

func locate(name, fallback string, args []string, lookup func(string) (string, bool)) string {
	if v := lastFlag(args, name); v != "" {
		return absolute(v)
	}
	if v, ok := lookup(Variable(name)); ok && v != "" {
		return absolute(v)
	}
	if parsed, err := readFiles(File(args, lookup), false, nil); err == nil {
		if v := parsed.values[name]; len(v) > 0 && v[0].Text != "" {
			return absolute(v[0].Text)
		}
	}
	return fallback
}

func lastFlag(args []string, name string) string {
	value := ""
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		if v, ok := strings.CutPrefix(args[i], "--"+name+"="); ok {
			value = v
		} else if args[i] == "--"+name && i+1 < len(args) {
			i++
			value = args[i]
		}
	}
	return value
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// UserDir is where a user who is not root keeps what root keeps in DefaultDataDir.
func UserDir() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".k3m"), nil
}
