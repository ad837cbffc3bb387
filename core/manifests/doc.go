// Package manifests keeps the objects of the files in a server's manifests folder applied.
//
//	watch.go    one inotify instance for the whole tree
//	scan.go     which files there are, and what they say
//	parse.go    a file's objects, or what is wrong with it, with its line
//	keeper.go   when that is looked at
//	sync.go     applies them, removes what has left, in order
//	report.go   what came of them: statuses, Events, the health board
//	record.go   the Manifest objects: which objects came from which file
//
// A file that can't be read or is mistaken changes nothing: its objects stay as they were applied last,
// and all other files go on. What is applied is recorded before, so that a server which dies in between
// leaves nothing that the next one does not know of:
//
//	recorded ── applied ── … ── removed ── taken off the record
package manifests
