// Package pull makes containerd pull images as registries.yaml says.
//
// hosts.go writes containerd's own hosts.toml files: endpoints, their order, certificates.
// containerd reads them at each pull, so that a change needs no restart. What those files
// have no word for, rewritten repositories and credentials, is added by source.go to the
// pulls that CRI asks for; credentials are kept in memory only.
package pull
