package datastore

// DataSourceName is for tests.
func DataSourceName(file string) string { return dataSourceName(file, SyncFull) }

// DataSourceNameOf is for tests.
var DataSourceNameOf = dataSourceName
