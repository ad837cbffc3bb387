package config

import (
	"strings"
	"testing"
)

func TestClusterDNSIsAnAddressOfServices(t *testing.T) {
	dual := []string{"--cluster-cidr=10.42.0.0/16,fd42::/56", "--service-cidr=10.43.0.0/16,fd43::/112"}
	for name, tc := range map[string]struct {
		args []string
		want string // the addresses, or what is wrong
		good bool
	}{
		"the default":             {nil, "10.43.0.10", true},
		"the default of two":      {dual, "10.43.0.10 fd43::a", true},
		"the default of another":  {[]string{"--service-cidr=10.99.0.0/24"}, "10.99.0.10", true},
		"another of the range":    {[]string{"--cluster-dns=10.43.7.7"}, "10.43.7.7", true},
		"one of each family":      {append(dual, "--cluster-dns=10.43.0.53,fd43::53"), "10.43.0.53 fd43::53", true},
		"the API's":               {[]string{"--cluster-dns=10.43.0.1"}, "10.43.0.1 is not a free address", false},
		"outside":                 {[]string{"--cluster-dns=169.254.20.10"}, "169.254.20.10 is not a free address", false},
		"of the other family":     {[]string{"--cluster-dns=fd43::a"}, "fd43::a is not a free address", false},
		"the second of two wrong": {append(dual, "--cluster-dns=10.43.0.10,fd44::a"), "fd44::a is not a free address", false},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, tc.args, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(eachText(c.ClusterDNS), " ")
			if err = c.CheckClusterDNS(); err != nil {
				got = err.Error()
				if !strings.Contains(got, "--cluster-dns") || !strings.Contains(got, "10.43.0.0/16") {
					t.Errorf("%q does not say where and what is allowed", got)
				}
			}
			if (err == nil) != tc.good || !strings.Contains(got, tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestAddressesOfANode(t *testing.T) {
	dual := []string{"--cluster-cidr=fd42::/56,10.42.0.0/16", "--service-cidr=fd43::/112,10.43.0.0/16"}
	for name, tc := range map[string]struct {
		args []string
		ips  string
		want string
	}{
		"one":                        {nil, "192.0.2.1", "192.0.2.1"},
		"the cluster's family first": {dual, "192.0.2.1,2001:db8::1", "2001:db8::1 192.0.2.1"},
		"none of a family":           {dual, "192.0.2.1", "fd42::/56"},
		"one too many":               {nil, "192.0.2.1,2001:db8::1", "2001:db8::1 is IPv6"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, append(tc.args, "--node-ip="+tc.ips), nil, "")
			got := ""
			if err == nil {
				got = strings.Join(eachText(c.NodeIPs), " ")
			} else {
				got = err.Error()
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
