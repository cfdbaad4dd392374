# `make` alone lists the targets. Nothing here is needed to run or test the project: each line is a plain go command.
.DEFAULT_GOAL := help

# The tools are pinned in a module of their own, so that their dependencies are not the service's. They are built on first
# use and cached. Without cgo sqlc brings its SQL parser as WebAssembly and needs no C compiler.
TOOL     := CGO_ENABLED=0 go tool -modfile=tools/go.mod
COMPOSE  ?= docker compose
IMAGE    ?= pgoutbox
ARGS     ?=
FUZZTIME ?= 30s

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: dev
dev: ## Run everything on a private PostgreSQL; ARGS=--fresh starts over
	go run ./cmd/outbox dev $(ARGS)

.PHONY: test
test: ## Run the tests; they find or start their PostgreSQL
	go test ./...

.PHONY: race
race: ## Run the tests under the race detector (needs a C compiler)
	go test -race ./...

.PHONY: e2e
e2e: ## Walk through the operators' pages in a browser (needs chromium; node and npm for the webhooks' receiver); pictures go to e2e/shots
	cd e2e && go test -count=1 $(ARGS) ./...

# The targets are those that there are: none is listed here. One at a time, since each takes all processors.
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (30s); ARGS=-parallel=2 takes fewer processors
	@list=$$(go test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ { name[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, name[i]; n = 0 }' | \
	while read -r package target; do \
		echo "== $$target of $$package"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $(ARGS) "$$package" </dev/null || exit 1; \
	done

.PHONY: lint
lint: ## Run go vet's friends, and the check of which package may import which
	$(TOOL) golangci-lint run

.PHONY: fmt
fmt: ## Format the Go code with gofumpt
	$(TOOL) gofumpt -w .

.PHONY: generate
generate: ## Generate the query packages from sql/ and migrations/
	$(TOOL) sqlc generate -f sql/sqlc.yaml

.PHONY: check-generated
check-generated: ## Fail where the generated code is not what sql/ and migrations/ give
	$(TOOL) sqlc diff -f sql/sqlc.yaml

.PHONY: ci
ci: ## Run all that has to pass before a merge
	.ci/run

.PHONY: docker
docker: ## Build the container image
	docker build -t $(IMAGE) .

.PHONY: up
up: ## Start PostgreSQL, the service and a mail catcher in containers
	$(COMPOSE) up -d --build

.PHONY: down
down: ## Stop the containers; the data stays (down -v removes it)
	$(COMPOSE) down $(ARGS)
