package logging

import (
	"path"
	"runtime"
	"strings"
)

// source is where in the program a record comes from.
type source struct {
	origin string
	// own says that k3m's core itself logs, by way of klog.
	own  bool
	file string
	line int
}

// ownPackages is the prefix of the core's.
const ownPackages = "github.com/k3m-io/k3m/core/"

// parts are the prefixes of functions that belong to one part of Kubernetes only.
var parts = []struct{ prefix, origin string }{
	{"k8s.io/kubernetes/pkg/kubelet", "kubelet"},
	{"k8s.io/kubernetes/cmd/kubelet", "kubelet"},
	{"k8s.io/kubernetes/pkg/volume", "kubelet"},
	{"k8s.io/kubelet", "kubelet"},
	{"k8s.io/cri-client", "kubelet"},
	{"github.com/google/cadvisor", "kubelet"},
	{"github.com/opencontainers/cgroups", "kubelet"},
	{"k8s.io/kubernetes/pkg/proxy", "kube-proxy"},
	{"k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"},
	{"k8s.io/kubernetes/pkg/scheduler", "scheduler"},
	{"k8s.io/kubernetes/cmd/kube-scheduler", "scheduler"},
	{"k8s.io/kube-scheduler", "scheduler"},
	{"k8s.io/kubernetes/pkg/controller.", "controller-manager"},
	{"k8s.io/kubernetes/pkg/controller/", "controller-manager"},
	{"k8s.io/kubernetes/cmd/kube-controller-manager", "controller-manager"},
	{"k8s.io/controller-manager", "controller-manager"},
	{"k8s.io/cloud-provider", "controller-manager"},
	{"k8s.io/kubernetes/pkg/controlplane", "apiserver"},
	{"k8s.io/kubernetes/pkg/kubeapiserver", "apiserver"},
	{"k8s.io/kubernetes/pkg/registry", "apiserver"},
	{"k8s.io/kubernetes/plugin", "apiserver"},
	{"k8s.io/kubernetes/cmd/kube-apiserver", "apiserver"},
	{"k8s.io/kube-aggregator", "apiserver"},
	{"k8s.io/apiextensions-apiserver", "apiserver"},
	{"k8s.io/apiserver/pkg/storage", "apiserver"},
	{"k8s.io/apiserver/pkg/registry", "apiserver"},
	{"k8s.io/apiserver/pkg/admission", "apiserver"},
	{"github.com/k3s-io/kine", "datastore"},
}

// caller finds out who logs, by the first function outside of the logging libraries that
// belongs to one part of Kubernetes. What several parts share (client-go, the API machinery)
// is passed over for who called it; k8s.io/apiserver serves the kubelet too, so that it is
// only a guess. It is called for lines that are written, and for information that is not.
func caller() source {
	var pcs [48]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var s source
	guess := "kubernetes"
	for {
		frame, more := frames.Next()
		if !more && frame.Function == "" {
			break
		}
		if !isLogging(frame.Function) {
			if s.file == "" {
				s.file, s.line = path.Base(frame.File), frame.Line
				if name, ok := strings.CutPrefix(frame.Function, ownPackages); ok && !strings.HasPrefix(name, "logging.") {
					name, _, _ = strings.Cut(name, ".")
					s.origin, s.own = path.Base(name), true
					return s
				}
			}
			if origin := partOf(frame.Function); origin != "" {
				s.origin = origin
				return s
			}
			if strings.HasPrefix(frame.Function, "k8s.io/apiserver") {
				guess = "apiserver"
			}
		}
		if !more {
			break
		}
	}
	s.origin = guess
	return s
}

// callerDepth is how many functions lie between the one that calls it and the first outside
// of the logging libraries.
func callerDepth() int {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for depth := 0; ; depth++ {
		frame, more := frames.Next()
		if !isLogging(frame.Function) || !more {
			return depth
		}
	}
}

func partOf(function string) string {
	for _, p := range parts {
		if strings.HasPrefix(function, p.prefix) {
			return p.origin
		}
	}
	return ""
}

// isLogging tells the functions that take a record on its way here.
func isLogging(function string) bool {
	for _, prefix := range []string{
		ownPackages + "logging.(", ownPackages + "logging.kubeSink", ownPackages + "logging.stdlib", ownPackages + "logging.caller",
		"k8s.io/klog/v2", "github.com/go-logr/", "log.", "log/", "github.com/sirupsen/logrus",
		"google.golang.org/grpc/grpclog", "google.golang.org/grpc/internal/grpclog",
	} {
		if strings.HasPrefix(function, prefix) {
			return true
		}
	}
	return false
}
