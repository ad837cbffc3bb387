package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"github.com/k3m-io/k3m/sdk"
	"github.com/k3m-io/k3m/sdk/proto/pluginv1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

func hang() {
	for {
		time.Sleep(time.Hour)
	}
}

func writeForever(w io.Writer) {
	line := bytes.Repeat([]byte("badplugin "), 1000)
	for {
		if _, err := w.Write(line); err != nil {
			return
		}
	}
}

// serveVersion is a plugin of a later contract: a real go-plugin server that knows only
// the given protocol version.
func serveVersion(version int) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: "K3M_PLUGIN", MagicCookieValue: "component"},
		VersionedPlugins: map[int]plugin.PluginSet{version: {"component": raw{}}},
		GRPCServer:       plugin.DefaultGRPCServer,
	})
	os.Exit(0)
}

// serveInfo is a plugin that was not made with the SDK: it says info, with the words that
// info lacks filled in, unchecked.
func serveInfo(info *pluginv1.Info) {
	proto.Merge(info, &pluginv1.Info{Kind: "addon", Name: mode, Version: "1.0.0", Scope: "node"})
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: "K3M_PLUGIN", MagicCookieValue: "component"},
		VersionedPlugins: map[int]plugin.PluginSet{1: {"component": raw{info: info}}},
		GRPCServer:       plugin.DefaultGRPCServer,
	})
	os.Exit(0)
}

// serveNetRPC is a plugin of go-plugin's old protocol.
func serveNetRPC() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: "K3M_PLUGIN", MagicCookieValue: "component"},
		VersionedPlugins: map[int]plugin.PluginSet{1: {"component": raw{}}},
	})
	os.Exit(0)
}

// handshakeElsewhere sends the host to a socket that is not the plugin's.
func handshakeElsewhere() {
	fmt.Println("1|1|unix|/run/somebody-elses.sock|grpc|")
	hang()
}

// raw is a plugin's service without the SDK.
type raw struct {
	plugin.NetRPCUnsupportedPlugin
	pluginv1.UnimplementedPluginServer
	info *pluginv1.Info
}

// Info says what it was told to.
func (r raw) Info(context.Context, *pluginv1.InfoRequest) (*pluginv1.InfoResponse, error) {
	return &pluginv1.InfoResponse{Info: r.info}, nil
}

// GRPCServer registers it.
func (r raw) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterPluginServer(s, r)
	return nil
}

// GRPCClient is not a plugin's part.
func (raw) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("no client")
}

// leaveChildren starts a process in a session of its own and ends without it.
func leaveChildren(ctx context.Context, host *sdk.Host) error {
	child := exec.CommandContext(context.WithoutCancel(ctx), "sleep", "3600")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	host.Logger().Info("left a child", "pid", child.Process.Pid)
	host.Ready()
	<-ctx.Done()
	return nil
}

// eatMemory takes 16 MiB every 10 ms until something stops it, at most 4 GiB.
func eatMemory(ctx context.Context, host *sdk.Host) error {
	host.Ready()
	var eaten [][]byte
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(eaten) < 256 {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			eaten = append(eaten, bytes.Repeat([]byte{1}, 16<<20))
		}
	}
	return fmt.Errorf("ate %d MiB, and nothing stopped it", 16*len(eaten))
}

// overdemand reports "overdemand: refused: …" when all that it tried was refused, and
// "overdemand: allowed: …" with what was not.
func overdemand(ctx context.Context, host *sdk.Host) error {
	var refused, allowed []string
	for what, try := range map[string]func() error{
		"list all secrets": func() error { return listSecrets(ctx, host.Kubeconfig()) },
		"mount a tmpfs":    func() error { return mountTmpfs(host.StateDir()) },
		"become root":      func() error { return syscall.Setuid(0) },
		"open a raw socket": func() error {
			fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
			if err == nil {
				err = syscall.Close(fd)
			}
			return err
		},
	} {
		if err := try(); err != nil {
			refused = append(refused, fmt.Sprintf("%s (%v)", what, err))
		} else {
			allowed = append(allowed, what)
		}
	}
	if len(allowed) > 0 {
		host.Degraded("overdemand: allowed: " + strings.Join(allowed, ", "))
	} else {
		host.Degraded("overdemand: refused: " + strings.Join(refused, ", "))
	}
	<-ctx.Done()
	return nil
}

func mountTmpfs(dir string) error {
	err := syscall.Mount("none", dir, "tmpfs", 0, "size=4k")
	if err == nil {
		err = errors.Join(syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	return err
}

// listSecrets asks the API for what the component has no rule for. It reads only the few
// lines that it needs of the kubeconfig, so that no client library is linked in.
func listSecrets(ctx context.Context, kubeconfig string) error {
	text, err := os.ReadFile(kubeconfig)
	if err != nil {
		return err
	}
	value := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if key, v, ok := strings.Cut(strings.Trim(line, " -\n"), ": "); ok {
			value[key] = strings.Trim(v, `"`)
		}
	}
	pem := func(key string) []byte {
		if b, err := base64.StdEncoding.DecodeString(value[key+"-data"]); err == nil && len(b) > 0 {
			return b
		}
		file := value[key]
		if !filepath.IsAbs(file) { // as client-go reads it
			file = filepath.Join(filepath.Dir(kubeconfig), file)
		}
		b, _ := os.ReadFile(file)
		return b
	}
	pair, err := tls.X509KeyPair(pem("client-certificate"), pem("client-key"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem("certificate-authority"))
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, value["server"]+"/api/v1/secrets", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}
