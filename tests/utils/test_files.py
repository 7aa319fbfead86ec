from __future__ import annotations

import pytest

from mrda_utils.files import left_over_beside, temporary_beside, written_whole


def test_two_that_write_one_file_at_once_do_not_mix(tmp_path):
    """Two containers share a folder, and each one's process has the number 1."""
    path = tmp_path / "a.png"
    with written_whole(path) as slow:
        slow.write(b"slow")
        with written_whole(path) as fast:
            fast.write(b"f")
        assert path.read_bytes() == b"f"
    assert path.read_bytes() == b"slow"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x.lmdb", "[a]*.png", "ä" * 125 + ".json", "y" * 86, "y" * 87])
def test_what_a_killed_process_leaves_is_found(tmp_path, name):
    path = tmp_path / name
    left_over = {temporary_beside(path) for _ in range(20)}
    assert len(left_over) == 20
    for temporary in (*left_over, path, temporary_beside(tmp_path / "other")):
        temporary.touch()
    assert set(left_over_beside(path)) == left_over
