// Package nginx is the component ingress.nginx: a controller around the host's nginx
// executable.
//
//	watches ─┐                                              ┌─ nginx master ── workers
//	         ├─ controller ── builder ── store ── reload ───┤   (sockets are the component's)
//	audit  ──┘   (batches)    translate   files   nginx -t  └─ errors and accesses to the log
//	                          render
//
// The controller (controller.go, watches.go) notices changes and batches them. The builder
// (build.go) makes nginx's configuration with the packages translate and render, has nginx
// judge it, and leaves out alone what nginx refuses. The process (process.go) is nginx
// itself: started on sockets that the component holds (listen.go), so that its death closes
// none, and told to reload.
package nginx
