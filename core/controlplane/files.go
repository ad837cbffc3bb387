package controlplane

import (
	"net/netip"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/k3m-io/k3m/core/pki"
	"github.com/k3m-io/k3m/core/supervisor/token"
	"github.com/k3m-io/k3m/core/supervisor/wire"
)

// Users of the control plane's own client certificates. Their roles are Kubernetes' own, but
// for userAPIServer's: see bootstrapRoles.
const (
	userAdmin             = "system:admin"
	groupAdmin            = "system:masters"
	userAPIServer         = "k3m:kube-apiserver" // the API server as the kubelets' client
	userAggregator        = "system:kube-aggregator"
	userControllerManager = "system:kube-controller-manager"
	userScheduler         = "system:kube-scheduler"
)

// credentials are the certificates and kubeconfigs that the components read.
type credentials struct {
	// token is the secret of the token that nodes join with.
	token string

	pki           *pki.PKI
	apiServing    pki.Pair
	localServing  pki.Pair // controller-manager and scheduler, on loopback
	kubeletClient pki.Pair
	aggregator    pki.Pair

	controllerManagerConfig string
	schedulerConfig         string
}

// prepareFiles loads or makes the authorities and everything that is signed by them. port is
// the API's.
func (c *ControlPlane) prepareFiles(port int, clusterExists bool) (*credentials, error) {
	authorities, err := pki.Ensure(c.opts.tlsDir(), clusterExists)
	if err != nil {
		return nil, err
	}
	f := &credentials{pki: authorities}
	localhost := pki.SANs{DNSNames: []string{"localhost"}, IPs: []netip.Addr{loopback4, loopback6}}
	var controllerManager, scheduler, admin pki.Pair
	for _, l := range []struct {
		into *pki.Pair
		by   *pki.Authority
		name string
		leaf pki.Leaf
	}{
		{&f.apiServing, f.pki.Server, "kube-apiserver", pki.Serving("kube-apiserver", c.apiNames())},
		{&f.localServing, f.pki.Server, "localhost", pki.Serving("localhost", localhost)},
		{&f.kubeletClient, f.pki.Client, "kubelet-client", pki.Client(userAPIServer)},
		{&f.aggregator, f.pki.RequestHeader, "aggregator", pki.Client(userAggregator)},
		{&controllerManager, f.pki.Client, ControllerManager, pki.Client(userControllerManager)},
		{&scheduler, f.pki.Client, Scheduler, pki.Client(userScheduler)},
		{&admin, f.pki.Client, "admin", pki.Client(userAdmin, groupAdmin)},
	} {
		pair, why, err := f.pki.EnsureLeaf(l.by, l.name, l.leaf)
		if err != nil {
			return nil, err
		}
		if why != "" {
			klog.V(1).InfoS("issued certificate", "name", l.name, "because", why)
		}
		*l.into = pair
	}

	if f.token, err = token.Ensure(TokenFile(c.opts.DataDir), c.opts.Token, f.pki.Server.PEM); err != nil {
		return nil, err
	}
	server := "https://" + netip.AddrPortFrom(LocalAddress(c.opts.BindAddress), uint16(port)).String()
	mode := c.opts.KubeconfigMode
	if mode == 0 {
		mode = defaultKubeconfigMode
	}
	f.controllerManagerConfig = filepath.Join(c.opts.credDir(), ControllerManager+".kubeconfig")
	f.schedulerConfig = filepath.Join(c.opts.credDir(), Scheduler+".kubeconfig")
	for _, k := range []kubeconfig{
		{f.controllerManagerConfig, 0o600, 0, userControllerManager, controllerManager},
		{f.schedulerConfig, 0o600, 0, userScheduler, scheduler},
		{c.opts.KubeconfigPath, mode, max(0, c.opts.KubeconfigGID), "default", admin},
		// Where a sub-command finds it that knows the data directory alone.
		{AdminKubeconfig(c.opts.DataDir), 0o600, 0, "default", admin},
	} {
		if err := k.write(server, f.pki.Server.PEM); err != nil {
			return nil, err
		}
	}
	return f, nil
}

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// apiNames are what the API is called: by pods, on this machine, and by whatever the user adds.
func (c *ControlPlane) apiNames() pki.SANs {
	o := c.opts
	names := pki.SANs{
		DNSNames: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + o.ClusterDomain,
			"localhost",
		},
		IPs: append([]netip.Addr{loopback4, loopback6, LocalAddress(c.opts.BindAddress)}, o.NodeIPs...),
	}
	if o.AdvertiseAddress.IsValid() {
		names.IPs = append(names.IPs, o.AdvertiseAddress)
	}
	if o.NodeName != "" {
		names.DNSNames = append(names.DNSNames, o.NodeName)
	}
	for _, cidr := range o.ServiceCIDRs {
		names.IPs = append(names.IPs, serviceIP(cidr))
	}
	for _, san := range o.TLSSANs {
		if ip, err := netip.ParseAddr(san); err == nil {
			names.IPs = append(names.IPs, ip)
		} else {
			names.DNSNames = append(names.DNSNames, san)
		}
	}
	return names
}

// clusterFacts is what the supervisor tells nodes that join.
func (c *ControlPlane) clusterFacts() wire.ClusterFacts {
	return wire.ClusterFacts{
		ClusterCIDRs:  words(c.opts.ClusterCIDRs),
		ServiceCIDRs:  words(c.opts.ServiceCIDRs),
		ClusterDNS:    words(c.opts.ClusterDNS),
		ClusterDomain: c.opts.ClusterDomain,
	}
}
