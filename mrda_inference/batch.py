"""Many photographs, one after the other: each becomes its file, or is told and passed over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from mrda_data.images import ImageError
from mrda_data.sources import first_ten
from mrda_inference.photograph import OutputOptions, TooLargeError, restore_file
from mrda_inference.tiling import one_behind
from mrda_inference.upscaler import Upscaler
from mrda_utils.errors import UNPRINTABLE, UserError, is_out_of_memory, printable
from mrda_utils.files import WriteError, kind_of, refusal_named


def restore_files(
    targets: list[tuple[Path, Path]], folder: Path, upscaler: Upscaler, output: OutputOptions, *, overwrite: bool
) -> int:
    """Restore each file and write it; one that fails is told on stderr and passed over, the last line counts them.

    Args:
        targets: source and target of each, see `files_to_make`.
        folder: of the targets, or the only target; for messages.
        upscaler: see `open_upscaler`.
        output: what the written files are like.
        overwrite: replace targets that exist.

    Returns:
        Exit code: 0; 1 if a file failed; 2 if one was too large for the memory.

    Raises:
        WriteError: the disk takes no more.
    """
    names = _Names(targets, folder, overwrite=overwrite)
    outcomes: dict[str, list[Path]] = {outcome: [] for outcome in ("upscaled", "skipped", "failed", "too large")}
    waiting: dict[Path, Future[list[str]]] = {}
    try:
        with ThreadPoolExecutor(max_workers=1) as writer:
            # one file behind: the next picture is restored while the last one is encoded and written
            for source, target in one_behind(_begun(targets, names, upscaler, output, writer, waiting)):
                outcomes[_outcome(source, waiting[source])].append(target)
                del waiting[source]
    finally:
        written = [source for source, writing in waiting.items() if writing.done() and not writing.exception()]
        outcomes["upscaled"] += written  # while the run was already ending
        _report(outcomes, len(targets), folder)
    return 2 if outcomes["too large"] else int(bool(outcomes["failed"]))


def _begun(
    targets: list[tuple[Path, Path]],
    names: _Names,
    upscaler: Upscaler,
    output: OutputOptions,
    writer: ThreadPoolExecutor,
    waiting: dict[Path, Future[list[str]]],
) -> Iterator[tuple[Path, Path]]:
    """Each file once it is restored, while the writer works on it; its future, in `waiting`, tells what went wrong."""
    for source, target in tqdm(targets, "images", disable=None if len(targets) > 1 else True):
        try:
            names.check(source, target)
            with _tile_bar(printable(source.name)) as progress:
                enlarged = restore_file(source, target, upscaler, output, progress)
            finish = enlarged.write
            del enlarged  # the writer lets go of the picture as soon as it is written
        except (_Skipped, UserError, MemoryError, RuntimeError) as error:
            # without its traceback, which would hold the memory of this picture while the next one needs it
            finish = partial(_fail, error.with_traceback(None) if is_out_of_memory(error) else error)
        waiting[source] = writer.submit(finish)
        del finish
        yield source, target


class _Names:
    """Which files may become which; knows all inputs, and the outputs so far."""

    def __init__(self, targets: list[tuple[Path, Path]], folder: Path, *, overwrite: bool) -> None:
        self.inputs = {identity for source, _ in targets if (identity := _identity(source))}
        self.sources: dict[Path, Path] = {}  # of each output
        self.folder, self.overwrite = folder, overwrite

    def check(self, source: Path, target: Path) -> None:
        """Refuse what must not be written, and skip what is there already."""
        if UNPRINTABLE.search(str(target.relative_to(self.folder))):
            raise ImageError(f"{str(source)!r}: control characters or no UTF-8 in the name; rename it")
        if target in self.sources:
            raise ImageError(f"{source}: {target} is already that of {self.sources[target]}; rename one of them")
        self.sources[target] = source
        with refusal_named(target):
            exists = bool(kind_of(target))
        if not exists:
            return
        if (found := _identity(target)) in self.inputs:
            replaced = "it" if found == _identity(source) else f"the input {target}"
            raise ImageError(f"{source}: its output would replace {replaced}; choose another -o")
        if not self.overwrite:
            raise _Skipped


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its name; None where there is none."""
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _outcome(source: Path, writing: Future[list[str]]) -> str:
    """What became of a file, told on stderr where it is not what was asked for."""
    try:
        for note in writing.result():
            tqdm.write(printable(f"{source}: {note}"), file=sys.stderr)
    except _Skipped:
        return "skipped"
    except WriteError as error:
        if error.of_any_file:
            raise
        message, outcome = str(error), "failed"
    except TooLargeError as error:
        message, outcome = str(error), "too large"
    except UserError as error:
        message, outcome = str(error), "failed"
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message, outcome = f"{source}: out of memory; choose a smaller --tile", "failed"
    else:
        return "upscaled"
    tqdm.write(printable(f"error: {message}"), file=sys.stderr)
    return outcome


def _report(outcomes: dict[str, list[Path]], total: int, folder: Path) -> None:
    """The last lines: what was skipped and why, and how many of all files had which outcome, or none."""
    if skipped := first_ten([printable(str(path)) for path in outcomes["skipped"]]):
        print(  # noqa: T201
            f"skipped, since the output exists (--overwrite replaces it): {', '.join(skipped)}", file=sys.stderr
        )
    counts = {outcome: len(paths) for outcome, paths in outcomes.items()}
    failed = counts["failed"] + counts["too large"]
    missing = total - sum(counts.values())  # of a run that has ended early
    ends = f"{failed} failed, {missing} not written" if missing else f"{failed} failed"
    print(f"{counts['upscaled']} upscaled, {counts['skipped']} skipped, {ends}: {printable(str(folder))}")  # noqa: T201


@contextmanager
def _tile_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that goes when the block ends, as `restore_file` tells its progress."""
    with tqdm(desc=title, unit="tile", disable=None, leave=False) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


class _Skipped(Exception):  # noqa: N818  (no error)
    """An output that is there already."""


def _fail(error: Exception) -> NoReturn:
    raise error
