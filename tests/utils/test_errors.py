from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mrda_utils.errors import UserError, run


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [(UserError("scale: 5"), 2, "error: scale: 5\n"), (KeyboardInterrupt(), 130, "interrupted; the last checkpoint")],
)
def test_mistakes_and_interruptions_end_in_one_line(error, code, line, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == code
    shown = capsys.readouterr().err
    assert shown.startswith(line)
    assert shown.count("\n") == 1


def test_a_path_that_cannot_be_reached_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    for path, reason in ((tmp_path / ("a" * 300), "File name too long"), (tmp_path / "loop", "symbolic links")):
        with pytest.raises(SystemExit) as end:
            run(path.stat)
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}: cannot be used (")
        assert reason in error
        assert error.count("\n") == 1
    with pytest.raises(FileNotFoundError):  # what was there before and is not now is told where it is opened
        run((tmp_path / "none").stat)


def test_a_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_a_name_that_the_consoles_encoding_lacks_is_shown_in_escapes(monkeypatch):
    """As on Windows, where output that goes to a file is in the code page of the system."""
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    program = r"from mrda_utils.errors import run; run(lambda: print('caf\xe9 \u732b'))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, b"caf\xe9 \\u732b")
