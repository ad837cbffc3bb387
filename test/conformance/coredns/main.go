// Command coredns is the DNS server that the images of the end-to-end tests hold as /coredns: CoreDNS with the
// plugins that the tests' own configuration files name. It has nothing to do with the cluster's DNS.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors" // it and the next two are what the files name
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/log"
)

func main() { coremain.Run() }
