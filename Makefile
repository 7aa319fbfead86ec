# Needs Python 3.10, 3.11 or 3.12 and make; everything else goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
PY      = $(VENV)/bin/python
READY   = $(VENV)/.ready

.PHONY: demo demo-real test lint clean

# the four stages at toy size, those that are not trained yet, then the Gaussian8 test with its report
demo: $(READY)
	$(PY) scripts/train_chain.py -opt options/demo/chain.yml
	$(PY) test.py -opt options/demo/test_gaussian8_x4.yml

# the same on Real-ESRGAN's degradations, and two stages more: teacher and student against a discriminator
demo-real: $(READY)
	$(PY) scripts/train_chain.py -opt options/demo_real/chain.yml
	$(PY) test.py -opt options/demo_real/test_x4.yml

test: $(READY)
	$(PY) -m pytest --openvino tests/inference tests/scripts/test_export_onnx.py
	$(PY) -m pytest

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# BasicSR's source build wants torch at hand and is slow in isolation: build it without, then install the rest
$(READY): setup.py pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; (3, 10) <= v < (3, 13) or sys.exit("Python 3.10, 3.11 or 3.12 is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip setuptools wheel
	$(PY) -m pip install --quiet --no-build-isolation --use-pep517 --no-deps basicsr==1.4.2
	$(PY) -m pip install --quiet --no-build-isolation --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV)
