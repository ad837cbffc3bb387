package datastore

// DataSourceName is for tests.
var DataSourceName = dataSourceName
