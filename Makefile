# Two commands for a newcomer: `make demo` and `make test`. Everything is installed into .venv.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RARELY_IMPORTED := /(tests?|testing/_internal|transformers/models|scipy|networkx|pip|setuptools)/
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_COMPILE := $(VENV)-lock/bin/uv pip compile --no-config --generate-hashes --no-header --no-annotate --no-emit-index-url
# Python keeps the bytecode of what the tests and their many processes import, whatever the machine says.
export PYTHONDONTWRITEBYTECODE :=
# Twice as many as there are cores, for the tests of Airflow wait a lot; 16 at most. Tests of a file share what it sets up and
# stay in one process; files begin in the order of tests/conftest.py.
TEST_PROCESSES := -n $$(( $$(nproc) < 8 ? 2 * $$(nproc) : 16 )) --dist loadfile --no-loadscope-reorder

.PHONY: setup demo run test test-quick gauntlet kills soak check fuzz bench golden peers docs docs-site docs-serve screenshots sbom lock pin-images images clean

setup: $(READY)  ## make .venv and install the locked requirements

$(READY): requirements.txt requirements-hashed.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	@echo "Installing into $(VENV) (two to three minutes) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile --require-hashes --no-deps -r requirements-hashed.txt
	@# torch by its version, with its own dependencies; the rest of requirements.txt is installed, so pip has little to resolve.
	$(PIP) --no-compile -c requirements.txt -r docker/requirements-torch.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) --no-deps --editable .
	@# Each airflow command starts in 2-3 s instead of 7 when the bytecode is there. Pip would make it on one core,
	@# and also of what next to nothing imports: a third of all.
	-@$(BIN)/python -m compileall -q -j 0 -x '$(RARELY_IMPORTED)' $(VENV)/lib >/dev/null 2>&1
	@# The compiled loops of parse and load, which their first run would wait for.
	-@$(BIN)/python -m laion_etl.cli.warm_kernels
	@touch $(READY)

demo: setup  ## the mini crawl through Airflow to a published dataset and a report
	@$(BIN)/laion-etl demo

run: setup  ## the same, and Airflow stays up until Ctrl-C
	@$(BIN)/laion-etl demo --keep

test: setup  ## all tests; they start their own services
	$(BIN)/python -m pytest $(TEST_PROCESSES)

test-quick: setup  ## those that need no Postgres, S3, Airflow or Chromium and take seconds
	$(BIN)/python -m pytest $(TEST_PROCESSES) -m "not (slow or airflow or browser or service)"

gauntlet: setup  ## a crawl with everything that can go wrong at once, compared with an undisturbed one
	$(BIN)/python -m pytest tests/airflow/test_gauntlet.py

kills: setup  ## kill each mapped task at 50 random moments and run it again: the bytes must not change
	KILLS=50 $(BIN)/python -m pytest -n auto --dist load --timeout 14400 -rP tests/faults/test_mapped_killed.py

soak: setup  ## MINUTES=20: long-lived processes while services fail; exit code 1 if memory or open files grow
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),20)

check: setup  ## format, lint, types, which package imports which, spelling, length of modules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict laion_etl dags plugins benchmarks scripts
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/python scripts/check_words.py
	$(BIN)/python scripts/check_length.py

fuzz: setup $(VENV)-fuzz/atheris  ## MINUTES=10: look for bytes on which a parser of foreign bytes fails
	PYTHONPATH=$(VENV)-fuzz $(BIN)/python -m tests.fuzz.campaign $(or $(MINUTES),10) $(TARGETS)

$(VENV)-fuzz/atheris:
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(VENV)-fuzz atheris==3.0.0

bench: setup  ## stage by stage timings on the mini crawl
	$(BIN)/python -m benchmarks.stages

golden: setup  ## compare scores with open_clip's own, into docs/accuracy.md; needs a network for weights
	$(BIN)/python -m benchmarks.golden

peers: $(VENV)-peers/bin/python $(VENV)-peers-clip/bin/python  ## environments of what the benchmarks compare with

$(VENV)-peers/bin/python: benchmarks/peers.txt
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt

$(VENV)-peers-clip/bin/python: benchmarks/peers-clip.txt
	$(PYTHON) -m venv $(VENV)-peers-clip
	$(VENV)-peers-clip/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers-clip.txt

docs: setup  ## what of the docs is made from commands, settings and drop reasons
	$(BIN)/python -m scripts.docs.reference > docs/configuration.md
	$(BIN)/python -m scripts.docs.commands > docs/commands.md
	$(BIN)/python -m scripts.docs.dags > docs/dags.md
	$(BIN)/python -m scripts.docs.metrics > docs/metrics.md
	$(BIN)/python -m scripts.docs.reproduction > docs/reproduction.md
	$(BIN)/python -m scripts.docs.reason_tables docs/formats.md

docs-site: $(VENV)-docs/bin/mkdocs  ## the documentation as a site with a reference of the library, in data/site
	$(VENV)-docs/bin/mkdocs build --strict

docs-serve: $(VENV)-docs/bin/mkdocs  ## the same on http://127.0.0.1:8000, made again when a page changes
	$(VENV)-docs/bin/mkdocs serve

screenshots: setup  ## the images of the documentation, from the demo; needs Chromium
	$(BIN)/python -m scripts.docs.screenshots

$(VENV)-docs/bin/mkdocs: pyproject.toml
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		$$($(PYTHON) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])")
	@touch $@

sbom: setup $(VENV)-sbom/bin/cyclonedx-py  ## a list of all installed packages with versions and licences (CycloneDX), in data/sbom.cdx.json
	@mkdir -p data
	$(VENV)-sbom/bin/cyclonedx-py environment --output-reproducible --output-format JSON -o data/sbom.cdx.json \
		--pyproject pyproject.toml $(BIN)/python

$(VENV)-sbom/bin/cyclonedx-py: Makefile
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0

lock: setup  ## requirements.txt from requirements.in; the same with hashes, and those of the images
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet pip-tools uv
	$(VENV)-lock/bin/pip-compile --quiet --upgrade --strip-extras --no-header --annotation-style=line \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host -o $(VENV)/lock.txt requirements.in
	{ echo "# Full lock of requirements.in, made by 'make lock'; install with: pip install -r requirements.txt"; \
		sed -e 's/^\(torch[a-z]*==[0-9.]*\)+[a-z0-9]*/\1/' -e '/^# The following packages/,$$d' $(VENV)/lock.txt; \
		grep '; python_version' requirements.in; } > requirements.txt
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@# pip-compile would download each file to hash it; uv takes the hashes from the index.
	{ echo "# requirements.txt without torch and torchvision, with the hashes of all files of each release; made by 'make lock'"; \
		sed -E -e '/^(#|torch(vision)?==)/d' -e 's/  #.*//' requirements.txt | \
		$(UV_COMPILE) --no-deps --universal --python-version 3.11.9 -; } > requirements-hashed.txt
	$(UV_COMPILE) --python-version 3.11 -c requirements.txt docker/requirements-auth.in > $(VENV)/auth.txt
	$(BIN)/python docker/requirements.py $(VENV)/auth.txt

pin-images:  ## write the digests of other projects' images into docker/ (images.txt, Dockerfiles, compose file); needs docker
	$(PYTHON) docker/pin_images.py

images: setup  ## build and try the images of workers and Airflow, with docker or buildah
	docker/try.sh worker airflow

clean:  ## remove the demo's data and caches; .venv and other data stay
	rm -rf data/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
