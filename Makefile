# Each target sets up the environment that it needs; nothing is installed outside this folder.
PYTHON ?= python3
DEV := .venv/bin
DEMO := .venv-demo/bin
LOWEST := .venv-lowest/bin
NEWEST := .venv-newest/bin
PROTOS := mlferry/spec/proto

# The versions that are installed on systems for which they were written down; `make pins` renews.
SYSTEM := $(shell $(PYTHON) -c "import sys; print('{}-{}.{}'.format(sys.platform, *sys.version_info))")
PINS := $(wildcard requirements/$(SYSTEM).txt)

LOWEST_PYTHON ?= python3.10
NEWEST_PYTHON ?= python3.13
# what runs without TensorFlow and Keras, which narrow the versions of the others
VERSIONS_TESTS := tests/spec tests/layers tests/models tests/runtime tests/compiled tests/test_limits.py \
  tests/converters/keras tests/converters/onnx/test_hostile_files.py \
  tests/converters/onnx/test_ops.py

.PHONY: pictures examples demo test lint type unit chromium wheel schema docs notebooks engine onnx-suite \
  keras-applications apple-models fuzz test-lowest test-newest bench pins sbom clean

demo: .venv-demo/ready  ## the main job, with NumPy, protobuf and h5py alone
	$(DEMO)/python examples/spatial_transformer/demo.py

test: lint type unit wheel  ## everything that CI runs

lint: .venv/ready
	$(DEV)/ruff format --check .
	$(DEV)/ruff check .
	$(DEV)/ruff check --preview --select PLW1514 --extend-exclude tests/classic_scripts .  # encodings
	$(DEV)/codespell

type: .venv/ready
	$(DEV)/mypy

unit: .venv/ready chromium  # in two processes, whose threads of BLAS would wait for each other
	OPENBLAS_NUM_THREADS=1 PATH="$(CURDIR)/$(DEV):$$PATH" $(DEV)/pytest -n 2 --dist loadfile \
	  --no-loadscope-reorder

chromium:  ## Debian's browser, for the tests of pages; without it they skip
	@command -v chromium >/dev/null || test "$$(id -u)" != 0 || \
	  { apt-get -qq update && apt-get -qq install --no-install-recommends chromium >/dev/null; } || \
	  echo "no Chromium could be installed: the tests of pages are skipped"

wheel: .venv/ready  ## the built wheel, installed into an empty environment, used elsewhere
	$(DEV)/python scripts/check_wheel.py

schema: .venv/ready  ## generate the protobuf modules from the .proto files
	PATH="$(CURDIR)/$(DEV):$$PATH" protoc -I. --python_out=. --pyi_out=. $(PROTOS)/*.proto

pictures: .venv/ready chromium  ## draw the pictures of README and guides
	$(DEV)/python scripts/draw_pictures.py

examples: .venv/ready  ## write the files of mlferry/examples and examples/ that are made of others
	$(DEV)/python scripts/write_examples.py
	$(DEV)/python scripts/write_app_example.py

notebooks: .venv/ready  ## run the notebooks of examples/ and keep their outputs
	$(DEV)/python scripts/run_notebooks.py

engine: .venv/ready  ## the tests of models, with onnxruntime in the place of the NumPy kernels
	$(DEV)/pytest --engine onnxruntime tests/converters tests/models tests/runtime/test_features.py

onnx-suite: .venv/ready  ## the node suite of the onnx package; writes its ledger
	$(DEV)/python -m tests.converters.onnx.suite

apple-models: .venv/ready  ## what coremltools makes of TensorFlow's ops, run here (minutes)
	TF_CPP_MIN_LOG_LEVEL=3 $(DEV)/python -m tests.runtime.apple 2>/dev/null

keras-applications: .venv/ready  ## every architecture of keras.applications against Keras
	$(DEV)/python -m tests.converters.keras.applications

fuzz: .venv/ready  ## mutated files for every reader: only our errors, no crash, no hang (hours)
	OPENBLAS_NUM_THREADS=1 $(DEV)/python -m tests.fuzz.run

test-lowest: .venv-lowest/ready  ## with the lowest supported versions, on the oldest Python
	MLFERRY_FEW_ORACLES=1 $(LOWEST)/python -m pytest $(VERSIONS_TESTS)

test-newest: .venv-newest/ready  ## with the newest versions, on the newest Python
	MLFERRY_FEW_ORACLES=1 $(NEWEST)/python -m pytest $(VERSIONS_TESTS)

bench: .venv/ready  ## the published figures, us and a peer in one run (Python 3.11 or newer)
	$(DEV)/python -m pip install --quiet --disable-pip-version-check -e '.[all]' --group bench
	$(DEV)/python benchmarks/runtime.py --docs
	$(DEV)/python benchmarks/runtime.py --docs --batches 1 --threads 0
	$(DEV)/python benchmarks/cores.py --docs
	$(DEV)/python benchmarks/hotspots.py --docs
	$(DEV)/python benchmarks/memory.py --docs
	$(DEV)/python benchmarks/layers.py --docs
	$(DEV)/python benchmarks/workers.py --docs
	$(DEV)/python benchmarks/many_samples.py --docs --idle
	$(DEV)/python benchmarks/training.py --docs
	$(DEV)/python benchmarks/converting.py --docs
	$(DEV)/python benchmarks/converting.py --programs --docs
	$(DEV)/python benchmarks/exporting.py --docs
	$(DEV)/python benchmarks/programs.py --docs
	$(DEV)/python benchmarks/large_models.py --docs
	$(DEV)/python benchmarks/compress.py --docs
	$(DEV)/python benchmarks/quantize.py
	if [ -d "$(MLFERRY_DATA)/photos_imagenet" ]; then $(DEV)/python benchmarks/few_bits.py --docs \
		"$(MLFERRY_DATA)/squeezenet/squeezenet_v1.1.onnx" "$(MLFERRY_DATA)/photos_calibration" \
		"$(MLFERRY_DATA)/photos_imagenet"; \
	else echo "the table of few bits stays: MLFERRY_DATA has no photos"; fi

docs: .venv/ready  ## write the generated tables of docs/, and the site into build/site
	$(DEV)/python scripts/write_docs.py
	TF_CPP_MIN_LOG_LEVEL=3 $(DEV)/python scripts/write_outputs.py
	NO_MKDOCS_2_WARNING=1 $(DEV)/mkdocs build --quiet

.venv/ready: pyproject.toml $(PINS)
	$(PYTHON) -m venv .venv
	$(DEV)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(DEV)/python -m pip install --quiet --disable-pip-version-check $(PINS:%=-c %) \
	  -e '.[all]' --group dev
	touch $@

pins:  ## write down the newest versions of what development installs, for this system and Python
	rm -rf .venv-pins
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	.venv-pins/bin/python -m pip install --quiet --disable-pip-version-check -e '.[all]' --group dev
	mkdir -p requirements
	.venv-pins/bin/python -m pip freeze --exclude-editable > requirements/$(SYSTEM).txt
	rm -rf .venv-pins

sbom: .venv/ready  ## the bill of materials of the wheel with its extras, build/mlferry.cdx.json
	$(DEV)/python -m pip install --quiet --disable-pip-version-check --group release
	$(DEV)/python scripts/write_sbom.py build/mlferry.cdx.json

.venv-demo/ready: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python -m pip install --quiet --disable-pip-version-check -e '.[keras]'
	touch $@

.venv-lowest/ready: pyproject.toml .venv/ready
	$(LOWEST_PYTHON) -m venv .venv-lowest
	$(DEV)/python scripts/lowest.py > .venv-lowest/constraints.txt
	$(LOWEST)/python -m pip install --quiet --disable-pip-version-check \
	  -c .venv-lowest/constraints.txt -e '.[all,compiled]' pytest hypothesis onnxruntime
	touch $@

.venv-newest/ready: pyproject.toml
	$(NEWEST_PYTHON) -m venv .venv-newest
	$(NEWEST)/python -m pip install --quiet --disable-pip-version-check \
	  -e '.[all,compiled]' pytest hypothesis onnxruntime
	touch $@

clean:
	rm -rf .venv .venv-demo .venv-lowest .venv-newest build dist
