// Package datastore keeps the cluster's objects: kine in this process, which speaks the part
// of etcd's protocol that the API server needs, over sqlite.
//
// It listens on a unix socket in a directory that only root can enter, so there is no port and
// no certificate to look after. Of kine's drivers only sqlite's is linked in: kine's own
// pkg/endpoint imports all of them, with a NATS server and Pebble, which is why this package
// puts the parts together itself.
//
// # Durability
//
// The database is in WAL mode with synchronous=FULL: a write that the API has acknowledged is on
// the disk. kine's own default, NORMAL, syncs at checkpoints only, and a power cut would take
// back writes that controllers have already acted on (never corrupt the file). See BenchmarkCommit
// for the price.
//
// Lock holds a data directory for one server at a time.
package datastore
