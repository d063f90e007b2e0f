# Everything a newcomer needs. Each command makes its environment first: only Python 3.11 to 3.13 and make are needed.
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: run demo test check fix parts bench bench-floods bench-marks bench-watchers endurance endurance-firestore faults soak requirements clean

run: ## both programs on this machine, one key, one line to paste
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m quickstart

demo: ## signs with every curve, shows a refused double signature
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m quickstart.demo

test: check ## everything: format, lint, types, tests, coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check:
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: ## repair format and what the linter can; write the table of rooms anew
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tests.contract.rooms

bench: ## rates and latencies of the enclave; with TLS as well: ARGUMENTS=--tls
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.enclave $(ARGUMENTS)

bench-floods: ## how long a baker waits for a signature while others flood the host; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.host_floods $(ARGUMENTS)

bench-marks: ## commits of the watermark store, then signatures over HTTP; OLD names another checkout to compare with
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.marks $(if $(OLD),--old $(OLD))
	$(BIN)/python -m benchmarks.host $(if $(OLD),--old $(OLD))

bench-watchers: ## what metrics, health, known keys and SIGHUP cost a baker with 10 000 keys; some three minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.watchers

endurance: ## kill -9 between mark and reply, 200 times; 1 000 000 messages and 100 000 connections read twice; a few minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.agreement 1000000
	$(BIN)/python -m tests.endurance.framing 100000
	FLIPS=700 $(BIN)/python -m pytest -q tests/integration/test_watermark_damage.py
	$(BIN)/python -m tests.endurance.kill_host 200
	$(BIN)/python -m tests.endurance.enclave_floods
	$(BIN)/python -m tests.endurance.long_frames 1000
	$(BIN)/python -m tests.endurance.unread_log 10000

endurance-firestore: ## two hosts race for 10 000 rights on one store in Firestore, in both ways, with faults; some ten minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.firestore_race 10000

faults: ## 10 000 signatures through a link on which everything goes wrong; then what the link costs, and a sealer that fails; a few minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.faulty_link 10000
	$(BIN)/python -m tests.endurance.link_times
	$(BIN)/python -m tests.endurance.sealer_faults

parts: ## tests that need more than Python and pip: a table of what ran; ARGUMENTS=--all fails when a part is missing
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.parts $(ARGUMENTS)

soak: ## ten minutes of signatures with a fault every ten seconds; memory of both programs
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.soak 600

requirements: ## resolve the dependencies anew; needs uv
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -o requirements.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra enclave-gcp --extra host-gcp --group dev pyproject.toml -o requirements-dev.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra host-gcp pyproject.toml -o requirements-host-gcp.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group enclave -o requirements-enclave.txt
	printf 'hatchling\neditables\n' | uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header - -o requirements-build.txt

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
