package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// debian is the release that the images' root is made of.
const debian = "bookworm"

// debianPackages are what agnhost and the tests call in the images, beside what every Debian has.
var debianPackages = []string{
	"bash",            // iperf's wrapper, and tests that want no other shell
	"bind9-dnsutils",  // dig, for the DNS tests
	"conntrack",       // the tests of kube-proxy's timeouts
	"curl",            // most network tests
	"iperf",           // the bandwidth tests
	"iproute2",        // ss and ip, for tests that look at a node's network
	"iptables",        // what the image distroless-iptables is for
	"netcat-openbsd",  // nc, for the network tests
	"nginx-light",     // the image of that name
	"socat",           // the tests of port forwarding
	"wget",            // tests of Services; busybox's static one does not bear another libc beside it
	"ca-certificates", // agnhost verifies certificates with them
	"e2fsprogs",       // mkfs.ext4, for volumes that are block devices
	"xfsprogs",        // mkfs.xfs, likewise
}

// rootTar is the layer that the images share.
func (s *suite) rootTar() string { return filepath.Join(s.out, "root.tar") }

// buildRoot makes the shared layer with debootstrap. It mounts below the new root, so it gets mounts of its own.
func (s *suite) buildRoot(ctx context.Context) error {
	return s.cached(s.rootTar(), append([]string{debian}, debianPackages...), []string{filepath.Join(s.source, "rootfs.go")}, func() error {
		dir, err := os.MkdirTemp(s.out, "root-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		err = command(ctx, s.out, nil, "unshare", "--mount", "--propagation=private", "debootstrap", "--variant=minbase",
			"--include="+strings.Join(debianPackages, ","), debian, dir)
		if err != nil {
			return fmt.Errorf("%w: is Debian's archive in reach?", err)
		}
		if err := os.Symlink("../../usr/bin/iperf", filepath.Join(dir, "usr/local/bin/iperf")); err != nil {
			return err
		}
		// Users that a test expects in agnhost's image.
		err = command(ctx, "/", nil, "chroot", dir, "/bin/sh", "-ec",
			`useradd -u 1000 -m user-defined-in-image && groupadd -g 50000 group-defined-in-image && usermod -aG group-defined-in-image user-defined-in-image`)
		if err != nil {
			return err
		}
		return command(ctx, dir, nil, "tar", "--create", "--file", s.rootTar(), "--numeric-owner", "--sort=name",
			"--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./debootstrap",
			"--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./usr/share/doc/*", "--exclude=./usr/share/man/*",
			"--exclude=./usr/share/locale/*", ".")
	})
}
