# Everything a newcomer needs. Each command makes its environment first: only Python 3.11 to 3.13 and make are needed.
VENV ?= .venv
# Where `make run` keeps everything.
STATE ?= .state
BIN = $(VENV)/bin

.PHONY: help run demo test check audit advisories sbom fix conformance parts image image-root image-development image-host bench bench-channel bench-floods bench-local bench-marks bench-octez bench-restore bench-watchers bench-capacity bench-http bench-burst bench-scale bench-stages bench-instructions bench-table endurance endurance-firestore faults fuzz fuzz-http wheel-compiled test-compiled soak chaos worlds world requirements clean

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 22

run: ## both programs on this machine, one key, one line to paste
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m quickstart $(STATE)

demo: ## signs with every curve, shows a refused double signature
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m quickstart.demo

test: check ## everything: format, lint, types, tests, coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: ## the format, the linter, the types, known vulnerabilities
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m supply_chain.advisories

audit: ## known vulnerabilities; fails for packages never asked about, and answers older than 90 days
	@scripts/environment $(VENV) requirements-dev.txt
	@$(BIN)/python -m supply_chain.advisories --strict

advisories: ## ask OSV about every package, and store its answers; needs the network
	@scripts/environment $(VENV) requirements-dev.txt
	@$(BIN)/python -m supply_chain.advisories --refresh

sbom: ## what each program is installed from, in CycloneDX's form
	@scripts/environment $(VENV) requirements-dev.txt
	@$(BIN)/python -m supply_chain.sbom "$(or $(OUT),build/sbom)"

fix: ## repair format and what the linter can; write the tables of rooms, limits and dependencies, draw the pictures
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m tests.contract.rooms
	$(BIN)/python -m tests.contract.limits
	$(BIN)/python -m supply_chain.page
	$(BIN)/python -m benchmarks.pictures

conformance: ## play the verdicts of conformance/ to a signer; URL=http://HOST:PORT KEY=tz1…, a throw-away key; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python conformance/run.py $(URL) $(if $(KEY),--key $(KEY)) $(ARGUMENTS)

bench: ## rates and latencies of the enclave, start and memory of both programs; OLD names another checkout to compare with
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.enclave $(if $(OLD),--old $(OLD))
	$(BIN)/python -m benchmarks.starts $(if $(OLD),--old $(OLD))

bench-channel: ## what TLS costs the enclave
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.channel

bench-floods: ## how long a baker waits for a signature while others flood the host; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.host_floods $(ARGUMENTS)

bench-local: ## signatures at a Unix socket with rules for its clients, beside TCP; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.local_use $(ARGUMENTS)

bench-marks: ## commits of the watermark store, then tz1 signatures over HTTP; OLD names another checkout to compare with
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.marks $(if $(OLD),--old $(OLD))
	$(BIN)/python -m benchmarks.host --types tz1 $(if $(OLD),--old $(OLD))

bench-octez: ## signatures over Octez' sockets, beside HTTP; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.octez $(ARGUMENTS)

bench-restore: ## how long keys take to come back by way of Cloud KMS, and what that costs; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.restore $(if $(OLD),--old $(OLD)) $(ARGUMENTS)

bench-watchers: ## what metrics, health, known keys and SIGHUP cost a baker with 10 000 keys; some three minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.watchers

bench-capacity: ## memory, disk and signatures a second, by the number of keys; some five minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.capacity $(ARGUMENTS)

bench-http: ## signatures over HTTP, marks on a real disk, every type of keys; OLD names another checkout to compare with
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.host $(if $(OLD),--old $(OLD)) $(ARGUMENTS)

bench-burst: ## 100 delegates preattest, then attest, at once; OLD names another checkout to compare with
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.burst $(if $(OLD),--old $(OLD)) $(ARGUMENTS)

bench-scale: ## the cost of a signature and the start, with 10 to 10 000 keys; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.scale $(if $(OLD),--old $(OLD)) $(ARGUMENTS)

bench-stages: ## where the time of a request goes; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.stages $(if $(OLD),--old $(OLD)) $(ARGUMENTS)

bench-instructions: ## how many instructions a signature over HTTP takes, by perf or callgrind; OLD names another checkout
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.instructions $(if $(OLD),--old $(OLD)) $(ARGUMENTS)

bench-table: ## our figures beside those of the Go and Rust signers, on a quiet machine; ARGUMENTS=--write puts them into the page
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m benchmarks.table $(ARGUMENTS)

endurance: ## kill -9 between mark and reply, 200 times; 1 000 000 messages and 100 000 connections read twice; a few minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.agreement 1000000
	$(BIN)/python -m tests.endurance.reencoding 100000
	$(BIN)/python -m tests.endurance.framing 100000
	FLIPS=700 $(BIN)/python -m pytest -q tests/integration/test_watermark_damage.py
	$(BIN)/python -m tests.endurance.kill_host 200
	$(BIN)/python -m tests.endurance.enclave_floods
	$(BIN)/python -m tests.endurance.long_frames 1000
	$(BIN)/python -m tests.endurance.decoding_costs
	$(BIN)/python -m tests.endurance.unread_log 10000
	$(BIN)/python -m tests.endurance.octez_frames 1000000

endurance-firestore: ## two hosts race for 10 000 rights on one store in Firestore, with faults; one is killed 50 times; both ways; some ten minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.firestore_race 10000
	$(BIN)/python -m tests.endurance.firestore_kills 50

faults: ## 10 000 signatures through a link on which everything goes wrong; then what the link costs, and a sealer that fails; a few minutes
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.faulty_link 10000
	$(BIN)/python -m tests.endurance.link_times
	$(BIN)/python -m tests.endurance.sealer_faults

worlds: ## 300 000 simulated worlds and the planted bugs, some 15 minutes of two cores; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.worlds $(ARGUMENTS)

world: ## one simulated world again, and what happens in it: SEED=NUMBER
	@scripts/environment $(VENV) requirements-dev.txt
	@$(BIN)/python -m tests.worlds --seed $(SEED)

fuzz: ## coverage-guided fuzzing; SECONDS=60 for each target, TARGETS=... for some of them; Linux on x86-64
	@scripts/environment .venv-fuzz requirements-dev.txt
	@scripts/environment .venv-fuzz requirements-fuzz.txt
	@.venv-fuzz/bin/python -m fuzz --seconds $(or $(SECONDS),60) $(TARGETS)

fuzz-http: ## schemathesis asks a running host what its OpenAPI documents allow, and more; EXAMPLES=100 for each operation
	@scripts/environment $(VENV) requirements-dev.txt
	@scripts/environment .venv-schemathesis requirements-schemathesis.txt
	@$(BIN)/python -m fuzz.apis .venv-schemathesis/bin/schemathesis $(or $(EXAMPLES),100)

wheel-compiled: ## a wheel for this Python in which the modules asked most are compiled, into dist/compiled; needs a C compiler
	@scripts/environment .venv-compiled requirements-dev.txt
	@scripts/environment .venv-compiled requirements-compiled.txt
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=true .venv-compiled/bin/python -m hatchling build -t wheel -d dist/compiled

test-compiled: wheel-compiled ## a second build elsewhere gives the same bytes; the tests without processes, with the compiled modules; both forms give the same answers
	@.venv-compiled/bin/python -m compiled.again dist/compiled
	@.venv-compiled/bin/python -m compiled.tree dist/compiled build/compiled
	cd build/compiled && PYTHONPATH=$$PWD ../../.venv-compiled/bin/python -m pytest -p compiled.plugin \
		--numprocesses 2 --dist loadfile tests/unit tests/vectors tests/property tests/conformance
	.venv-compiled/bin/python -m tests.endurance.compiled build/compiled $(or $(INPUTS),1000000)

parts: ## tests that need more than Python and pip: a table of what ran; ARGUMENTS=--all fails when a part is missing
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.parts $(ARGUMENTS)

image-root: ## the application root of the image alone; IMAGE_TOML=FILE says what the image is, OUT=FOLDER where to make it
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m image.root $(if $(IMAGE_TOML),--image-toml "$(IMAGE_TOML)") --out "$(or $(OUT),build/root)" $(ARGUMENTS)

image: ## the measured image, with buildah, and its digest; IMAGE_TOML=FILE says what it is; ARGUMENTS=--help
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m image.build $(if $(IMAGE_TOML),--image-toml "$(IMAGE_TOML)") $(ARGUMENTS)

image-development: ## the same with the local sealer: not for keys of value, never to be pushed
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m image.build --target development $(if $(IMAGE_TOML),--image-toml "$(IMAGE_TOML)") $(ARGUMENTS)

image-host: ## an image of the host, which is not measured
	@scripts/environment $(VENV) requirements.txt
	@$(BIN)/python -m image.build --target host $(ARGUMENTS)

soak: ## 50 signatures a second with a fault every ten seconds; does memory grow? SECONDS=600; ARGUMENTS='--leak request': is that found?
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.soak $(or $(SECONDS),600) $(ARGUMENTS)

chaos: ## everything fails at once, under load; SECONDS=600; ARGUMENTS='--seed NUMBER' for other faults
	@scripts/environment $(VENV) requirements-dev.txt
	$(BIN)/python -m tests.endurance.chaos $(or $(SECONDS),600) $(ARGUMENTS)

requirements: ## resolve the dependencies anew; needs uv
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -o requirements.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra enclave-gcp --extra host-gcp --extra host-gcs --extra enclave-vault --extra enclave-kbs \
		--extra keyprovider --group dev pyproject.toml -o requirements-dev.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra host-gcp --extra host-gcs pyproject.toml -o requirements-host-gcp.txt
	uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group enclave -o requirements-enclave.txt
	printf 'h2>=4.3,<5\n' | uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header - -o requirements-keyprovider.txt
	printf 'hatchling\neditables\n' | uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header - -o requirements-build.txt
	printf 'schemathesis>=4.32,<5\n' | uv pip compile --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --constraint requirements-dev.txt - -o requirements-schemathesis.txt
	printf 'setuptools>=80\n' | uv pip compile --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header - -o requirements-compiled.txt
	@echo "Now: make advisories; make fix"

clean: ## remove the environment and all caches
	rm -rf $(VENV) .venv-fuzz .venv-schemathesis .venv-compiled .schemathesis .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
