package containerd

import (
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/platforms"
)

// settings are what containerd's configuration is made of.
type settings struct {
	layout
	abilities
	snapshotter string
	sandbox     sandboxImage
	// shimCgroup is where shims go, so that the end of this process's cgroup is not
	// theirs.
	shimCgroup            string
	cniBinDir, cniConfDir string
}

// least is the OOM score of containerd itself where it may be set, as in containerd's
// own systemd unit.
const least = -999

// grpcURI is the plugin that serves the socket.
const grpcURI = "io.containerd.server.v1.grpc"

// baseConfig is what k3m sets of containerd's configuration: the keys of its TOML file. What
// is not set has containerd's default.
type baseConfig struct {
	Version         int            `toml:"version"`
	Root            string         `toml:"root"`
	State           string         `toml:"state"`
	OOMScore        int            `toml:"oom_score"`
	DisabledPlugins []string       `toml:"disabled_plugins"`
	RequiredPlugins []string       `toml:"required_plugins"`
	Plugins         map[string]any `toml:"plugins"`
}

func (s settings) base() baseConfig {
	score := 0
	if s.lowerOOMScore {
		score = least
	}
	return baseConfig{
		Version:         version.ConfigVersion,
		Root:            s.root,
		State:           s.state,
		OOMScore:        score,
		DisabledPlugins: s.disabled(),
		RequiredPlugins: []string{"io.containerd.grpc.v1.cri", bridgeURI},
		Plugins: map[string]any{
			grpcURI:                           map[string]any{"address": s.socket},
			"io.containerd.server.v1.ttrpc":   map[string]any{"address": s.ttrpc},
			"io.containerd.shim.v1.manager":   map[string]any{"socket_dir": s.shimSockets},
			"io.containerd.gc.v1.scheduler":   map[string]any{"startup_delay": "10s"}, // after the boot
			"io.containerd.cri.v1.images":     s.images(),
			"io.containerd.cri.v1.runtime":    s.runtime(),
			"io.containerd.transfer.v1.local": s.transfer(),
		},
	}
}

// disabled are plugins that are linked in but not for this node.
func (s settings) disabled() []string {
	off := []string{
		// Nobody scrapes or traces this process; both cost time in each call.
		"io.containerd.metrics.v1.grpc-prometheus",
		"io.containerd.metrics.v1.grpc-otel",
		"io.containerd.server.v1.grpc-tcp",
	}
	for _, name := range snapshotters {
		uri := "io.containerd.snapshotter.v1." + name
		// One that was used before stays, so that what it holds can be removed.
		if _, err := os.Stat(filepath.Join(s.root, uri)); name != s.snapshotter && err != nil {
			off = append(off, uri)
		}
	}
	return off
}

func (s settings) images() map[string]any {
	return map[string]any{
		"snapshotter": s.snapshotter,
		// CRI makes sandboxes of the one called sandbox; the name with the tag is for people.
		"pinned_images": map[string]any{"sandbox": s.sandbox.pinned, "tag": s.sandbox.name},
		"registry":      map[string]any{"config_path": s.registries},
	}
}

func (s settings) transfer() map[string]any {
	return map[string]any{
		"config_path": s.registries,
		"unpack_config": []map[string]any{{
			"platform":    platforms.Format(platforms.DefaultSpec()),
			"snapshotter": s.snapshotter,
			"differ":      "walking",
		}},
	}
}

func (s settings) runtime() map[string]any {
	return map[string]any{
		"disable_apparmor":       !s.apparmor,
		"restrict_oom_score_adj": !s.lowerOOMScore,
		// Each node has its network namespaces to itself.
		"netns_mounts_under_state_dir": true,
		// The kubelet's figures come from cAdvisor; these are for others that ask CRI,
		// and a sample a second for each container would be most of the idle work.
		"stats_collect_period": "10s",
		"cni": map[string]any{
			"bin_dirs": []string{s.cniBinDir},
			"conf_dir": s.cniConfDir,
			// Bring lo up without running an executable for it.
			"use_internal_loopback": true,
		},
		"containerd": map[string]any{
			"default_runtime_name": "runc",
			"runtimes": map[string]any{
				"runc": map[string]any{
					"runtime_type": runcType,
					"runtime_path": s.shim(),
					"options":      s.runcOptions(),
				},
			},
		},
	}
}

// runcType is the runtime type of runc's shim.
const runcType = "io.containerd.runc.v2"

func (s settings) shim() string { return filepath.Join(s.bin, "containerd-shim-runc-v2") }

func (s settings) runcOptions() map[string]any {
	return map[string]any{
		"BinaryName":    filepath.Join(s.bin, "runc"),
		"Root":          s.runcRoot(),
		"ShimCgroup":    s.shimCgroup,
		"SystemdCgroup": s.systemdCgroup,
	}
}
