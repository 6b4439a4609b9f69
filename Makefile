# Each target sets up what it needs, so that any of them can be run first on a fresh machine.
#
#   make course      open the course in JupyterLab, your own copy of it in my_course/
#                    (make course ARGS=--no-browser on a server; RENEW=05 begins a notebook anew)
#   make demo        the four detectors on a scene           (make demo IMAGE=holiday.jpg: and on an image of yours)
#   make test        unit tests, doctests, every notebook    (make test ARGS="-k nms" for a part)
#   make unit        without the notebooks
#   make coverage    the same, and which lines of the package no test runs; fails below 95 %
#   make notebooks-check   the notebooks alone
#   make lint        ruff: lint and format
#   make nightly     what takes longer: average precision on the whole test split, and random bugs (make mutants)
#   make notebooks   run every notebook and store its outputs   (make notebooks ARGS=05: one of them)
#   make benchmark   our operations against their references (make benchmark ARGS="boxes pooling")
#   make site        the course as pages, to be read without Python: build/site/html/index.html
#   make history     the four detectors side by side         (make history ARGS=--update)
#
#   CPU=1            install torch without the packages for NVIDIA GPUs, which take gigabytes on Linux
#   PYTHON=…         the Python to build .venv from
#   CONSTRAINTS=     the newest versions in place of the tested ones
#   These three matter when .venv is made: say `make clean` first if there is one.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= -c constraints.txt
ARGS ?=
ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif
INSTALLED := $(VENV)/installed

# Make exports what was set on its command line, and expands it for that: a file named $(shell …) would run a command.
# In the recipes `value` keeps it from expanding names and arguments.
$(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(eval unexport $(name))))

.PHONY: course demo test unit coverage notebooks-check lint nightly mutants notebooks benchmark history site clean

# ARGS are JupyterLab's. Quotes keep the shell from reading anything in what is passed on.
course: $(INSTALLED)
	$(BIN)/python -m minircnn course --renew '$(subst ','\'',$(value RENEW))' --jupyter '$(subst ','\'',$(value ARGS))'

# IMAGE is one file, whatever its name holds: the quotes keep the shell from reading anything in it. IMAGES are
# several, as one writes them in a shell: IMAGES="a.jpg 'b c.jpg' folder".
demo: $(INSTALLED)
	$(BIN)/minircnn demo $(if $(value IMAGE),-- '$(subst ','\'',$(value IMAGE))') $(value IMAGES)

# Two processes with one thread each: tests and notebooks run side by side without fighting for the cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(INSTALLED) lint
	$(PYTEST) --nbval minircnn workshop tests notebooks $(value ARGS)

unit: $(INSTALLED)
	$(PYTEST) minircnn workshop tests $(value ARGS)

coverage: $(INSTALLED)
	$(PYTEST) --cov=minircnn --cov=workshop --cov-report=term-missing:skip-covered --cov-fail-under=95 minircnn workshop tests $(value ARGS)

notebooks-check: $(INSTALLED)
	$(PYTEST) --nbval notebooks $(value ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

nightly: $(INSTALLED) mutants
	$(BIN)/python -m pytest -m nightly tests $(value ARGS)

# Operators of the core are exchanged at random, and its tests must notice. ARGS="--only boxes": a part of it.
mutants: $(INSTALLED)
	$(BIN)/python -m tests.mutation.random_operators $(value ARGS)

notebooks: $(INSTALLED)
	$(BIN)/python -m workshop.notebooks $(value ARGS)

benchmark: $(INSTALLED)
	$(BIN)/python -m workshop.benchmarks $(value ARGS)

history: $(INSTALLED)
	$(BIN)/python -m workshop.history $(value ARGS)

site: $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e ".[site]"
	$(BIN)/python -m workshop.site

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage*

# Written last, so that an installation that was interrupted is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
ifneq ($(CPU),)
	$(BIN)/python -m pip install --quiet "uv>=0.6.9"
	$(BIN)/python -m uv pip install --python $(VENV) --torch-backend cpu $(CONSTRAINTS) -e ".[course,test]"
else
	$(BIN)/python -m pip install $(CONSTRAINTS) -e ".[course,test]"
endif
	touch $@
