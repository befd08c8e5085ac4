# make demo    the whole job on real text: domains in, proxy models, a mixture, two larger models to check it
# make serve   the service on the same data
# make test    installs what it needs and runs every test
# make test-long   those that take over a minute each and hold nothing the others do not
# make test-consumers   exports drawn by the trainers' own loaders, each installed in an environment of its own
# make test-slurm   launches on a real Slurm cluster of one node, which it installs
# make test-kernel   the numerical tests again, on other matrix kernels than the processor's own
# make lint    ruff, pyright, the import contracts
# make audit   known vulnerabilities of what constraints.txt pins; says so loudly where nobody can be asked

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test test-long test-consumers test-slurm test-kernel lint audit clean

BIN := .venv/bin
INSTALLED := .venv/.mixwright-installed
ARGS ?=
# Two processes: most tests are one process at one thread, and the machine they must fit has two cores.
TEST_PROCESSES ?= 2

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(INSTALLED)

# Another TORCH_INDEX than the one installed from is a reason to install again.
ifneq ($(TORCH_INDEX),)
ifneq ($(TORCH_INDEX),$(shell cat $(INSTALLED) 2>/dev/null))
.PHONY: $(INSTALLED)
endif
endif
export TORCH_INDEX

$(INSTALLED): pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh

demo: $(INSTALLED)
	@$(BIN)/mixwright demo $(ARGS)

serve: $(INSTALLED)
	@$(BIN)/mixwright serve $(ARGS)

# loadfile: the tests of one file share what it prepared once; in their order, for the longest come early so. ARGS="tests/mixing -k swarm" picks some.
test: $(INSTALLED)
	@scripts/chromium.sh
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations 10 -m "not long and not consumer and not slurm" $(ARGS)

test-long: $(INSTALLED)
	@$(BIN)/python -m pytest --durations 10 -m long $(ARGS)

test-consumers: $(INSTALLED)
	@scripts/consumers.sh
	@CONSUMER_DRAWS=benchmarks/results/consumers.json $(BIN)/python -m pytest --durations 10 -m consumer $(ARGS)

test-slurm: $(INSTALLED)
	@scripts/slurm.sh
	@$(BIN)/python -m pytest --durations 10 -m slurm $(ARGS)

# As on a processor of another make: what must hold on any is tested on two.
test-kernel: $(INSTALLED)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $$($(BIN)/python scripts/other_kernel.py) \
		$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not long" \
		tests/mixing tests/proxy_models/test_precision.py $(ARGS)

# pyright's own question whether there is a newer version would go to the network.
lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(BIN)/lint-imports

audit: $(INSTALLED)
	@scripts/audit.sh

# What can be made again; never the data directory.
clean:
	rm -rf .venv .audit build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
