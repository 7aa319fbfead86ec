"""What README and docs tell one to type exists, and what needs nothing runs; their tables are whole."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "weights/README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "mrda-upscale", "mrda-web", "tensorboard", "torchrun", "srun")
CANNOT_RUN = {  # why a command is looked at, but not run
    r"(train|train_chain)\.py": "trains for hours or days, on images",
    r"(?<!/)\btest\.py": "tests for minutes",
    r"ablation\.py": "trains for hours",
    r"figures\.py": "takes the weights of trainings",
    r"prepare_data\.py|fetch_open_photos\.py": "needs images or the network",
    r"(convert_(official|weights)|remove_checkerboard)\.py|--weights experiments/": "takes weights that are not here",
    r"generate_options_docs\.py": "writes into the clone",
    r"gallery\.py": "takes other programs' images",
    r"benchmarks/": "measures for minutes, with the machine to itself",
    r"-m pytest": "runs tests",
    r"mrda-web|mrda_inference\.web": "serves until it is interrupted",
    r"--backend openvino|export_onnx": "has tests of its own",
    r"tensorboard": "serves until it is interrupted; started below",
    r"^python \S+$|\.\.\.|\bROW\b|<|NAME|FOLDER|\$": "an abbreviation",
}


def fenced(page: Path, language: str) -> list[str]:
    """Contents of the blocks of this language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for name, text in blocks if re.fullmatch(language, name)]


def commands(page: Path) -> list[str]:
    """Lines of fenced blocks and inline code that call a program; lines that go on are joined."""
    blocks = [block.replace("\\\n", " ") for block in fenced(page, "(?:bash|sh)?")]
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text) if " " in code.strip()]
    return [line for line in lines if line.startswith(tuple(f"{program} " for program in PROGRAMS))]


COMMANDS = sorted({command for page in PAGES for command in commands(page)})
RUN = [command for command in COMMANDS if not any(re.search(pattern, command) for pattern in CANNOT_RUN)]


def test_commands_are_found():
    assert len(COMMANDS) > 30
    assert "python inference.py -i photo.jpg -o out/" in RUN
    assert "tensorboard --logdir experiments" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_programs_files_and_options_of_a_command_exist(command):
    words = [word for word in re.split(r"[\s\[\]]+", command) if word]
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in (".", "scripts", "benchmarks", "tests", "mrda_inference", "mrda_options")
        for path in [*(ROOT / folder).glob("*.py"), *(ROOT / folder).glob("*/*.py")]
    )
    for word in words:
        if re.fullmatch(r"(scripts|options|benchmarks|tests)/[\w/.]+|\w+\.py", word) and ".." not in word:
            assert (ROOT / word).exists(), word
        if match := re.fullmatch(r"(--[a-z][\w-]+)(=.*)?", word):
            foreign = words[0] in ("tensorboard", "torchrun", "srun")
            assert foreign or f'"{match[1]}"' in sources, word


@pytest.fixture
def here(tmp_path):
    """A folder that looks like a clone with photographs."""
    for name in ("options", "scripts", "inference.py", "weights", "mrda_inference", "mrda_utils", "mrda_arch"):
        (tmp_path / name).symlink_to(ROOT / name)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photo.png", "photos/a.jpg"):
        image.save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("command", [pytest.param(c, marks=[] if "large.webp" in c else pytest.mark.slow) for c in RUN])
def test_what_needs_neither_network_nor_data_runs(command, here):
    words = shlex.split(re.sub(r"\[[^\]]*\]", "", command))
    program = {"python": [sys.executable], "mrda-upscale": [sys.executable, str(ROOT / "inference.py")]}[words[0]]
    done = subprocess.run([*program, *words[1:]], cwd=here, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


def test_tensorboard_starts(tmp_path):
    (tmp_path / "experiments").mkdir()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "experiments", "--port", "0"]
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=file) as served:
        try:
            deadline = time.monotonic() + 120
            while "http://" not in log.read_text() and served.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            served.kill()
    assert "http://" in log.read_text(), log.read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_blocks_import_exists(page):
    for block in fenced(page, "python"):
        compile(block, str(page), "exec")
        for line in block.splitlines():
            if match := re.match(r"(?:from|import) (mrda_\w+|safetensors|onnxruntime|torch)", line):
                if match[1] == "onnxruntime" and find_spec("onnxruntime") is None:
                    continue
                exec(line.split("#")[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_row_of_a_table_has_a_cell_for_each_column(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    tables = [part.splitlines() for part in re.findall(r"^\|.*(?:\n(?!\n).+)*", text, re.MULTILINE)]
    for heading, rule, *rows in tables:
        assert re.fullmatch(r"\|( ?:?-+:? ?\|)+", rule), f"no table: {heading}"  # after a blank line rows are text
        for row in rows:
            assert len(re.split(r"(?<!\\)\|", row)) == rule.count("|") + 1, row
