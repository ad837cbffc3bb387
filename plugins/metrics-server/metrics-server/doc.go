// Package metricsserver is the component metrics-server.metrics-server: the resource metrics
// API (metrics.k8s.io), for `kubectl top` and autoscaling, served by metrics-server's own
// packages inside a plugin process.
//
// plugin.go says who the component is; config.go is what a user may configure; objects.go
// are the Service and the APIService that lead the API server here; server.go puts the
// parts together: the API machinery, the informers, the scraper, the storage; warmup.go
// gets the first figures early; watch.go tells the host when nodes give none; export.go are
// the component's own metrics.
//
// What ordinary users may read of the API (system:aggregated-metrics-reader) is one of the
// control plane's default roles, in core/controlplane.
package metricsserver
