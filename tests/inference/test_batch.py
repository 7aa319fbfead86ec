"""One picture is restored while the one before it is written."""

from __future__ import annotations

import time
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image

from mrda_inference import batch, photograph
from tests.inference.conftest import outputs, upscaled


@pytest.fixture
def story(folder, monkeypatch):
    """Four photographs, a.png to d.png, a writer that is slow, and what happened in which order."""
    story = []
    for name in "bcd":
        Path(f"photos/{name}.png").write_bytes(Path("photos/a.png").read_bytes())
    Path("photos/sub/b.png").unlink()
    restore_file, write = batch.restore_file, photograph.write_pixels

    def restore(source, *arguments, **options):
        story.append(f"restores {source.name}")
        return restore_file(source, *arguments, **options)

    def slow(pixels, side, path, quality):
        story.append(f"writes {path.name}")
        time.sleep(0.2)
        notes = write(pixels, side, path, quality)
        story.append(f"wrote {path.name}")
        return notes

    monkeypatch.setattr(batch, "restore_file", restore)
    monkeypatch.setattr(photograph, "write_pixels", slow)
    return story


def test_a_picture_is_restored_while_the_one_before_is_written(story):
    assert upscaled("-i", "photos", "-o", "out") == 0
    for name, following, third in ("abc", "bcd"):
        assert story.index(f"restores {following}.png") < story.index(f"wrote {name}.png")
        assert story.index(f"wrote {name}.png") < story.index(f"restores {third}.png")  # one picture ahead, no more
    assert story[-1] == "wrote d.png"


def test_what_cannot_be_written_is_told_and_counted_in_the_order_of_the_files(story, capsys):
    Path("photos/b.png").write_text("no image")
    Path("out/a.png").mkdir(parents=True)
    Path("out/c.png").write_bytes(b"mine")
    assert upscaled("-i", "photos", "-o", "out", "--overwrite") == 1
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if "png" in line and "%" not in line]
    assert lines[0].startswith("error: out/a.png: cannot be written")
    assert lines[1].startswith("error: photos/b.png: cannot be decoded")
    assert "2 upscaled, 0 skipped, 2 failed" in told.out
    assert Image.open("out/c.png").size == (36, 48)


def test_memory_that_is_short_for_the_file_itself_is_told(story, capsys, monkeypatch):
    def refuse(*arguments):
        raise MemoryError

    monkeypatch.setattr(photograph, "write_pixels", refuse)
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert capsys.readouterr().err.count("out of memory; choose a smaller --tile") == 4


def test_a_fault_of_the_writer_is_not_swallowed(story, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(photograph, "write_pixels", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        upscaled("-i", "photos", "-o", "out")


def test_an_interruption_leaves_whole_files_only(story, monkeypatch):
    restore = batch.restore_file

    def interrupted(source, *arguments, **options):
        if source.name == "b.png":
            raise KeyboardInterrupt
        return restore(source, *arguments, **options)

    monkeypatch.setattr(batch, "restore_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        upscaled("-i", "photos", "-o", "out")
    assert story == ["restores a.png", "writes a.png", "wrote a.png"]
    assert outputs("out") == ["a.png"]
    assert Image.open("out/a.png").size == (36, 48)


def test_a_picture_is_let_go_before_the_one_after_the_next(folder, monkeypatch):
    """An error keeps the frames in which it was raised, and with them what they hold."""
    alive = []

    def short(colour, *arguments, **options):
        alive.append(weakref.ref(colour))
        assert sum(reference() is not None for reference in alive) == 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(photograph, "_restore", short)
    assert upscaled("-i", "photos", "-o", "out") == 1
    assert len(alive) == 2
