from __future__ import annotations

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


def test_a_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)
