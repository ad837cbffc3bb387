package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// SANs are the names that a serving certificate is good for.
type SANs struct {
	DNSNames []string
	IPs      []netip.Addr
}

func (s SANs) netIPs() []net.IP {
	var ips []net.IP
	for _, ip := range s.IPs {
		ips = append(ips, net.IP(ip.Unmap().AsSlice()))
	}
	return ips
}

// Pair is a leaf certificate on disk, with its key.
type Pair struct {
	CertFile, KeyFile string
	CertPEM, KeyPEM   []byte
}

// EnsureLeaf keeps <Dir>/<name>.crt and .key a certificate of authority a that says what leaf
// says. It issues a new one, and says why, when there is none, when less than RenewBefore of it
// is left, when it says something else, or when it can't be read: nothing is lost with a leaf.
func (p *PKI) EnsureLeaf(a *Authority, name string, leaf Leaf) (pair Pair, why string, err error) {
	pair = Pair{CertFile: filepath.Join(p.Dir, name+".crt"), KeyFile: filepath.Join(p.Dir, name+".key")}
	pair.CertPEM, pair.KeyPEM, err = readPair(pair)
	if err == nil {
		err = a.check(pair, leaf, time.Now())
	}
	if err == nil {
		return pair, "", nil
	}
	why = err.Error()
	pair.CertPEM, pair.KeyPEM, err = a.Issue(leaf)
	if err != nil {
		return Pair{}, "", err
	}
	if err := writePair(p.Dir, name, pair.CertPEM, pair.KeyPEM); err != nil {
		return Pair{}, "", fmt.Errorf("issue certificate %q: %w", name, err)
	}
	return pair, why, nil
}

func readPair(pair Pair) (certPEM, keyPEM []byte, err error) {
	certPEM, err = os.ReadFile(pair.CertFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, errors.New("there is none yet")
	}
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = os.ReadFile(pair.KeyFile)
	return certPEM, keyPEM, err
}

// check says why pair is not what leaf asks for at the time given, or nil.
func (a *Authority) check(pair Pair, leaf Leaf, now time.Time) error {
	cert, err := ParseCertificate(pair.CertPEM)
	if err != nil {
		return err
	}
	key, err := parseKey(pair.KeyPEM)
	if err != nil {
		return err
	}
	if !samePublicKey(cert.PublicKey, key.Public()) {
		return errors.New("its key is another certificate's")
	}
	if err := cert.CheckSignatureFrom(a.Cert); err != nil || !bytes.Equal(cert.RawIssuer, a.Cert.RawSubject) {
		return errors.New("another authority signed it")
	}
	// An authority at its own end can't give a leaf more time than it has itself.
	if cert.NotAfter.Sub(now) < RenewBefore && cert.NotAfter.Before(a.Cert.NotAfter) {
		return fmt.Errorf("it ends on %s", cert.NotAfter.Format(time.DateOnly))
	}
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("it starts on %s only", cert.NotBefore.Format(time.DateOnly))
	}
	if !leaf.matches(cert) {
		return errors.New("its names or uses changed")
	}
	return nil
}

// matches says whether cert says exactly what leaf says, in any order.
func (l Leaf) matches(cert *x509.Certificate) bool {
	var ips []string
	for _, ip := range l.SANs.netIPs() {
		ips = append(ips, ip.String())
	}
	var certIPs []string
	for _, ip := range cert.IPAddresses {
		certIPs = append(certIPs, ip.String())
	}
	return l.CommonName == cert.Subject.CommonName &&
		sameSet(l.Organizations, cert.Subject.Organization) &&
		sameSet(l.SANs.DNSNames, cert.DNSNames) &&
		sameSet(ips, certIPs) &&
		slices.Equal(l.Usage, cert.ExtKeyUsage)
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
