# Every target is listed by "make help". The two that matter to a stranger:
# "make demo" and "make test" do all their set-up by themselves (Debian, root).

SHELL      := /bin/bash
GOFLAGS    ?= -trimpath
GOTOOL     := go tool -modfile=tools/go.mod
BIN        := bin/backend.ai
RUNNER     := internal/engine/oci/payload/runner-linux-amd64
PAGE       := internal/runner/ttyd/page/index.html
GOSRC      := $(shell find . -name '*.go' -not -path './web/node_modules/*') $(wildcard images/*.toml internal/store/migrations/*.sql internal/api/graphql/*.graphql) go.mod go.sum
WEBSRC     := $(shell find web -type f -not -path '*/node_modules/*' -not -path '*/dist/*')

# What the demo needs of the distribution, and what the tests need on top.
DEMO_PACKAGES := crun mmdebstrap curl ca-certificates
BENCH_PACKAGES := $(DEMO_PACKAGES) openssh-client openssh-server
TEST_PACKAGES := $(DEMO_PACKAGES) runc busybox-static chromium openssh-client openssh-server openssh-sftp-server rsync git \
                 ansible-core lftp putty-tools python3-paramiko rclone sshfs

.PHONY: help demo test check build vm bench lint fmt clean unit integration e2e cross demo-packages bench-packages test-packages

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: demo-packages build ## a session with Jupyter at http://localhost:9900, from nothing
	@bash e2e/demo.sh

test: test-packages check cross integration e2e ## all set-up and all tests

check: fmt-check lint unit ## the fast checks: format, lint, vet, tests without root

build: $(BIN) ## the one static binary, bin/backend.ai

$(PAGE): $(WEBSRC)
	cd web && npm ci --no-audit --no-fund --silent && npm run --silent build
	@touch $@

$(RUNNER): $(PAGE) $(GOSRC)
	@# the runner speaks HTTP/1.1 over a socket; HTTP/2 would be memory in every session
	CGO_ENABLED=0 GOOS=linux go build $(GOFLAGS) -tags nethttpomithttp2 -ldflags '-s -w' -o $@ ./cmd/runner

$(BIN): $(RUNNER) $(GOSRC)
	CGO_ENABLED=0 go build $(GOFLAGS) -ldflags '-s -w' -o $@ ./cmd/backend.ai

unit: ## vet, and the tests that need neither root nor containers, with the race detector
	go vet ./...
	go test -race -shuffle=on ./...

integration: build ## the parts against real containers, terminals and browsers (root)
	go vet -tags integration ./...
	go test -tags integration -count=1 -p 1 $$(go list ./... | grep -v -e /e2e -e /bench)

e2e: build ## the whole product with real clients and a real browser (root)
	go test -tags integration -count=1 -timeout 20m ./e2e/...

vm: ## tests on Debian's kernel in a virtual machine: the engine with cgroup v2 alone, quotas of file systems, a server on those; VM=quota or VM=server runs one (root)
	@bash .ci/vm $(VM)

bench: bench-packages build ## measure the product against baselines, as a table (root)
	CGO_ENABLED=0 go run ./bench

cross: ## the client half also builds, tests included, for macOS and Windows
	for os in darwin windows; do \
	  CGO_ENABLED=0 GOOS=$$os go build -o /dev/null ./cmd/backend.ai && \
	  GOOS=$$os go vet . ./internal/auth ./internal/tunnel ./internal/client ./internal/term ./internal/version ./cmd/backend.ai || exit 1; \
	done

lint: ## golangci-lint and govulncheck
	$(GOTOOL) golangci-lint run ./...
	@# the vulnerability database may be out of reach; code that is known vulnerable fails
	@out=$$($(GOTOOL) govulncheck ./... 2>&1); code=$$?; \
	if [ $$code = 3 ]; then echo "$$out"; exit 1; elif [ $$code != 0 ]; then echo "govulncheck could not run: $$(tail -n1 <<<"$$out")"; fi

fmt: ## format the sources
	gofmt -w $$(git ls-files '*.go')

.PHONY: fmt-check
fmt-check:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "run make fmt for:" $$bad; exit 1; fi

clean: ## remove what the build made
	rm -rf bin web/node_modules web/dist $(RUNNER)
	find internal/runner/ttyd/page -type f -not -name .gitkeep -delete

demo-packages:
	@bash .ci/packages $(DEMO_PACKAGES)

bench-packages:
	@bash .ci/packages $(BENCH_PACKAGES)

test-packages:
	@bash .ci/packages $(TEST_PACKAGES)
