# build, test, lint, bench, e2e: what a developer runs. .ci/run is what CI runs.
BIN := bin
GOLANGCI_VERSION := v2.6.2
GOLANGCI := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)

.PHONY: build test race lint fuzz bench torture e2e clean

build:
	go build -o $(BIN)/tidemark ./cmd/tidemark

test:
	go test ./...

race:
	go test -race ./...

$(GOLANGCI):
	GOBIN=$(abspath $(BIN)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(BIN)/golangci-lint $@

lint: $(GOLANGCI)
	$(GOLANGCI) run ./...
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"

# every fuzz target for FUZZTIME each
FUZZTIME ?= 10s
fuzz:
	bash scripts/fuzz.sh $(FUZZTIME)

# allocations on the path of a request, the cost of waiting fetches and of groups. The scenarios: go run ./scripts/bench, and beside other brokers ./scripts/bench-peers
bench:
	go test -run '^$$' -bench . -benchmem ./server/...
	go run ./scripts/waiting
	go run ./scripts/groups

# the short forms; powerloss and enospc want root and loop devices, errors wants strace
TORTURES := kill9 powerloss crashpoints rot errors enospc slowdisk hostile groups txn soak planted
torture:
	set -e; for form in $(TORTURES); do go run ./scripts/torture $$form; done

e2e:
	bash scripts/e2e/run.sh

clean:
	rm -rf $(BIN)
