# The commands that people type. What is checked before a change is accepted is in .ci/run.
.PHONY: demo test check lint generate

demo: ## a Slack workspace and an Entra tenant on one page
	go run ./cmd/countersign demo

test: ## every test
	go test ./...

check: ## everything that must hold before a change is accepted
	bash .ci/run

lint: ## see .golangci.yml
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run

generate: ## what is generated from the command table
	go run ./cmd/countersign manifest >manifest.yml
	go run ./cmd/countersign readme-table >README.table
	awk 'NR == FNR { table = table $$0 "\n"; next } /^<!-- commands: end/ { old = 0 } !old { print } \
		/^<!-- commands: begin/ { old = 1; printf "%s", table }' README.table README.md >README.new
	mv README.new README.md && rm README.table
