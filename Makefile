# k3m: `make help` lists the targets. Everything is made below dist/.

GO       ?= $(shell command -v go 2>/dev/null || echo /usr/local/go/bin/go)
VERSION  ?= v1.37.2+k3m1
COMMIT   := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
TREE     := $(shell test -z "$$(git status --porcelain 2>/dev/null)" && echo clean || echo dirty)
# The commit's time, so that one commit gives the same bytes at any time.
DATE     := $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo 1970-01-01T00:00:00Z)

# netgo and osusergo: the executables are static, so no libc resolver may be needed. The
# rest leaves out of containerd what no k3m node can use.
TAGS     := netgo,osusergo,static_build,sqlite_omit_load_extension,seccomp,no_btrfs,no_devmapper,no_zfs,no_aufs
export CGO_ENABLED := 1
export GOFLAGS     := -trimpath -buildvcs=false -tags=$(TAGS)
export GOTOOLCHAIN := local

STAMPS   := $(foreach p,k8s.io/component-base/version k8s.io/client-go/pkg/version,\
            -X $(p).gitVersion=$(VERSION) -X $(p).gitMajor=1 -X $(p).gitMinor=37 -X $(p).gitCommit=$(COMMIT) \
            -X $(p).gitTreeState=$(TREE) -X $(p).buildDate=$(DATE))
LDFLAGS  := -s -w -extldflags=-static $(STAMPS)
# A linker that warns of dlopen in static executables (which nothing in them calls) would
# only worry people: what it says is shown when it fails.
quietly   = 2>$(BUILD)/log || { cat $(BUILD)/log >&2; exit 1; }

CONTAINERD = -X github.com/containerd/containerd/v2/version.Version=$(patsubst v%,%,$(shell $(GO) list -m -f '{{.Version}}' github.com/containerd/containerd/v2))
BUILD    := dist/build
BUNDLE   := $(BUILD)/bundle
RUNTIME  := plugins/runtime/containerd
CNI      := plugins/cni/flannel
TRAEFIK  := plugins/ingress/traefik
MODULES  := sdk plugins/ingress/kit docs/examples/addon.whoami $(TRAEFIK)

.DEFAULT_GOAL := help
.PHONY: help run build test unit e2e bench conformance lint generate verify deps clean FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## Install what is missing, build, and start a server (as root); ctrl-C stops it
	@dist/k3m server $(ARGS)

build: deps dist/k3m ## Build dist/k3m, the one-file distribution

test: build ## Install what is missing, build, and run every test (as root)
	@test "$$(id -u)" = 0 || { echo "make test: the end-to-end tests make network namespaces; run it as root: sudo make test" >&2; exit 1; }
	@sh .ci/packages test
	$(MAKE) --no-print-directory unit e2e

unit: export K3M_TEST_BIN_DIR := $(CURDIR)/$(BUNDLE)/bin
unit: export K3M_TEST_CNI_DIR := $(CURDIR)/$(BUNDLE)/cni
unit: ## Run the tests of all packages but the end-to-end ones
	$(GO) test $$($(GO) list ./... | grep -v /test/)
	@set -e; for m in $(MODULES); do (cd $$m && echo "module $$m" && $(GO) test ./...); done

# One package after another: a node takes a quarter of the inotify instances that root has.
e2e: ## Run the end-to-end tests against dist/k3m (as root)
	K3M_E2E=1 K3M_DIST=$(CURDIR)/dist/k3m $(GO) test -count=1 -p 1 -timeout=25m ./test/...

lint: ## Run the linters, pinned in test/tools
	GOFLAGS=-trimpath $(GO) tool -modfile=test/tools/go.mod golangci-lint run ./...
	@set -e; for m in $(MODULES); do (cd $$m && GOFLAGS=-trimpath $(GO) tool -modfile=$(CURDIR)/test/tools/go.mod golangci-lint run ./...); done

generate: ## Generate the wire contract's Go code anew (needs protobuf-compiler)
	@mkdir -p $(BUILD)/tools
	@cd test/tools && GOFLAGS= GOBIN=$(CURDIR)/$(BUILD)/tools $(GO) install tool
	PATH=$(CURDIR)/$(BUILD)/tools:$$PATH protoc -I sdk/proto --go_out=sdk/proto --go_opt=paths=source_relative \
		--go-grpc_out=sdk/proto --go-grpc_opt=paths=source_relative sdk/proto/pluginv1/plugin.proto

verify: generate ## Check that generated code, module files and formatting are as committed
	@for m in . $(MODULES) test/conformance/suite; do (cd $$m && GOFLAGS= $(GO) mod tidy -diff) || exit 1; done
	@test -z "$$(gofmt -l cmd components core plugins registries sdk test docs)" || { gofmt -l cmd components core plugins registries sdk test docs; exit 1; }
	git diff --exit-code -- sdk/proto

bench: build ## Measure boot, size and idle cost of dist/k3m (as root); prints JSON
	@sh .ci/packages test >&2
	@K3M_DIST=$(CURDIR)/dist/k3m $(GO) run ./test/bench

# Make hands its command line's variables to the shell's environment: so arguments reach the program as they are,
# in whatever quotes (a focus is full of backslashes).
conformance: build ## Run upstream's end-to-end tests in a cluster (as root); FOCUS, SKIP, PROCS, K3M_ARGS
	@sh .ci/packages conformance
	@K3M_DIST=$(CURDIR)/dist/k3m $(GO) run ./test/conformance -focus "$$FOCUS" -skip "$$SKIP" -procs $(or $(PROCS),4) -server "$$K3M_ARGS"

deps: ## Install the operating-system packages that are missing
	@sh .ci/packages

# --- what dist/k3m is made of ---------------------------------------------------------

# go build decides by itself what is out of date, so its targets are always tried.
$(BUILD)/built: FORCE
	@mkdir -p $(BUNDLE)/bin $(BUNDLE)/cni $(BUNDLE)/images $(BUNDLE)/plugins
	@echo "building k3m $(VERSION) (the first time takes 10 to 20 minutes)"
	@$(GO) build -ldflags='$(LDFLAGS)' -o $(BUNDLE)/bin/k3m ./cmd/k3m $(quietly)
	@$(GO) build -ldflags='$(LDFLAGS) $(CONTAINERD)' -o $(BUNDLE)/bin/k3m-plugins ./cmd/k3m-plugins $(quietly)
	@$(GO) build -ldflags='$(LDFLAGS)' -o $(BUNDLE)/bin/k3m-metrics-server ./cmd/k3m-metrics-server $(quietly)
	@cd $(TRAEFIK) && $(GO) build -ldflags='-s -w -extldflags=-static' -o $(CURDIR)/$(BUNDLE)/bin/k3m-traefik ./cmd/k3m-traefik 2>$(CURDIR)/$(BUILD)/log || { cat $(CURDIR)/$(BUILD)/log >&2; exit 1; }
	@CGO_ENABLED=0 $(GO) build -ldflags='-s -w' -o $(BUNDLE)/bin/k3m-launch ./cmd/k3m-launch
	@CGO_ENABLED=0 $(GO) build -tags=$(TAGS),no_grpc -ldflags='-s -w $(CONTAINERD)' -o $(BUNDLE)/bin/containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
	@cd $(RUNTIME)/carried && $(GO) build -ldflags='-s -w -extldflags=-static -X main.version='$$($(GO) list -m -f '{{.Version}}' github.com/opencontainers/runc | cut -c2-) -o $(CURDIR)/$(BUNDLE)/bin/runc github.com/opencontainers/runc
	@cd $(RUNTIME)/carried && CGO_ENABLED=0 $(GO) build -ldflags="-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$$($(GO) list -m -f '{{.Version}}' sigs.k8s.io/cri-tools)" -o $(CURDIR)/$(BUNDLE)/bin/crictl sigs.k8s.io/cri-tools/cmd/crictl
	@cd $(CNI)/carried && for p in main/bridge main/loopback ipam/host-local meta/portmap meta/bandwidth; do \
		CGO_ENABLED=0 $(GO) build -ldflags='-s -w' -o $(CURDIR)/$(BUNDLE)/cni/ github.com/containernetworking/plugins/plugins/$$p || exit 1; done
	@$(GO) build -ldflags='-s -w' -o $(BUILD)/ ./cmd/k3m-bundle ./cmd/k3m-pack ./cmd/k3m-bake
	@touch $@

$(BUNDLE)/images/pause.tar: $(wildcard $(RUNTIME)/pause/* $(RUNTIME)/pause/*/*)
	@mkdir -p $(@D)
	@sh $(RUNTIME)/pause/build.sh $(CC) $(BUILD)/pause
	@$(GO) run ./$(RUNTIME)/pause/mkimage -in $(BUILD)/pause -out $@

# The list of digests changes only when what is carried does; then the file is packed.
$(BUILD)/digests: $(BUILD)/built $(BUNDLE)/images/pause.tar
	@$(BUILD)/k3m-bake -bundle $(BUNDLE)
	@cd $(BUNDLE) && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum > ../digests.new
	@sha256sum $(BUILD)/k3m-bundle >> $(BUILD)/digests.new
	@cmp -s $(BUILD)/digests.new $@ && rm $(BUILD)/digests.new || mv $(BUILD)/digests.new $@

dist/k3m: $(BUILD)/digests
	@$(BUILD)/k3m-pack -extractor $(BUILD)/k3m-bundle -dir $(BUNDLE) -o $@
	@ls -l $@ | awk '{print "built $@, " $$5 " bytes"}'

clean: ## Remove what was built
	rm -rf dist
