# Needs Python 3.10 to 3.14 and make; everything else goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python
READY   = $(VENV)/.ready

.PHONY: demo demo-real test lint update test-versions test-core dist clean

# the four stages at toy size, those that are not trained yet, then the Gaussian8 test with its report
demo: $(READY)
	$(PY) scripts/train_chain.py -opt options/demo/chain.yml
	$(PY) test.py -opt options/demo/test_gaussian8_x4.yml

# the same on Real-ESRGAN's degradations, and two stages more: teacher and student against a discriminator
demo-real: $(READY)
	$(PY) scripts/train_chain.py -opt options/demo_real/chain.yml
	$(PY) test.py -opt options/demo_real/test_x4.yml

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --openvino tests/inference tests/scripts/test_export_onnx.py
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# checks the machine first and says all that it lacks
$(READY): setup.py pyproject.toml constraints.txt scripts/make_environment.py
	$(PYTHON) scripts/make_environment.py $(VENV)

# the newest versions of everything that constraints.txt pins, for all platforms; kept if the tests pass with them
update: $(READY)
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip compile setup.py --universal --python-version 3.10 --all-extras --no-emit-package basicsr \
		--no-annotate --no-header --upgrade --quiet --output-file constraints.txt
	$(MAKE) test

# the core of the suite on every interpreter from 3.10 to 3.14 that is there, in an environment each, one after the other
test-versions:
	for version in 3.10 3.11 3.12 3.13 3.14; do \
		python$$version -c '' 2> /dev/null || continue; \
		$(MAKE) test-core PYTHON=python$$version VENV=.venv-$$version || exit 1; \
		rm -rf .venv-$$version; \
	done

test-core: $(READY)
	$(PY) -m pytest -q tests/utils tests/arch tests/data tests/engine

# sdist, wheel, and BasicSR's wheel beside them: pip install --find-links dist mrda
dist: $(READY)
	$(PY) -m pip install --quiet build
	$(PY) -m build
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist ./third_party/basicsr

clean:
	rm -rf $(VENV)
