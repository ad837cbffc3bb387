package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/k3m-io/k3m/core/config"
	"github.com/k3m-io/k3m/core/controlplane"
	"github.com/k3m-io/k3m/core/datastore"
)

// kubeletPort is upstream's default.
const kubeletPort = 10250

// checkPorts finds a port that is taken before anything is started. What it finds free
// can be taken the moment after; then the part that wants it says so.
func checkPorts(cfg *config.Config) error {
	host := ""
	if cfg.BindAddress.IsValid() && !cfg.BindAddress.IsUnspecified() {
		host = cfg.BindAddress.String()
	}
	if err := checkPort("the API", host, cfg.HTTPSPort); err != nil {
		return notOurs(cfg, "bind-address", host, err)
	}
	port := kubeletPort
	for _, arg := range cfg.KubeletArgs {
		if value, ok := strings.CutPrefix(arg.Text, "port="); ok {
			number, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return &config.Error{Source: arg.Source, Message: fmt.Sprintf("%q is not a port", value)}
			}
			port = int(number)
		}
	}
	node := cfg.NodeIPs[0].String()
	return notOurs(cfg, "node-ip", node, checkPort("the kubelet", node, port))
}

// notOurs is the better error for an address that isn't the machine's.
func notOurs(cfg *config.Config, option, address string, err error) error {
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return &config.Error{Source: cfg.Source(option), Message: address + " is not an address of this machine; `ip address` shows those that are"}
}

// checkPort tries to listen on a host's port; an empty host is all of them.
func checkPort(who, host string, port int) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))) //nolint:noctx // it is closed at once
	if err != nil {
		return fmt.Errorf("%s can't have port %d (`ss -ltnp` tells who has it): %w", who, port, err)
	}
	return listener.Close()
}

// heldBy is the better error when the one that has the port is another server on the same
// data directory.
func heldBy(dataDir string, portError error) error {
	file := controlplane.LockFile(dataDir)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return portError
	}
	lock, err := datastore.AcquireLock(file)
	var locked *datastore.LockedError
	if errors.As(err, &locked) {
		return locked
	}
	if err == nil {
		_ = lock.Release() // it was only a question
	}
	return portError
}
