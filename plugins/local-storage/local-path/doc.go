// Package localpath is the component local-storage.local-path: PersistentVolumes that are
// directories on the node, made and removed by the plugin on that node itself.
//
// plugin.go says who the component is and puts its parts together; config.go is what a
// user may configure and package pathpattern how a volume's directory is called; objects.go has
// the StorageClass. The work: provision.go (a claim becomes a volume, a released volume
// goes), driven by sig-storage-lib-external-provisioner; resize.go; capacity.go (what the
// scheduler is told of free space); ledger.go (what a crash must not leave behind). What
// touches the file system, and nothing else does: base.go, remove.go, quota.go.
//
// Nothing here is needed by a volume that is in use: it is a directory, and the kubelet
// mounts it. The process may end at any time.
package localpath
