"""The files of a report except its page: report.md, report.tex, metrics.csv and metrics.json."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Iterable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import cv2

from mrda_eval.spread import Spread
from mrda_eval.tables import Means, MethodCost, Table, cell_texts, text_of
from mrda_utils import __version__
from mrda_utils.files import json_value, write_text


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's content."""
    digest = sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _harmless(row: tuple) -> list:
    """With ./ before what a spreadsheet would compute, such as the name of an image that begins with =."""
    return [f"./{cell}" if isinstance(cell, str) and cell.startswith(tuple("=+-@")) else cell for cell in row]


def write_csv(rows: Iterable[tuple], fields: tuple[str, ...], path: Path) -> None:
    """One line for each row, under the names of the fields; whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(fields)
    writer.writerows(map(_harmless, rows))
    write_text(text.getvalue(), path)


def write_json(
    means: Means,
    costs: dict[str, MethodCost],
    name: str,
    options_sha256: str,
    weights: dict[str, str],
    path: Path,
    spreads: Iterable[Spread] = (),
    complete: bool = True,
) -> None:
    """Means and costs by method, and how they came about: hashes of options and weights, versions.

    A mean that is not finite, the PSNR of identical images, is the text "inf". `complete` is false for a test that was
    interrupted.
    """
    content = {
        "name": name,
        "complete": complete,
        "means": [
            dict(zip(("dataset", "method", "metric"), key, strict=True), value=json_value(value))
            for key, value in means.items()
        ],
        "spreads": [spread._asdict() for spread in spreads],
        "costs": {method: cost._asdict() for method, cost in costs.items()},
        "options_sha256": options_sha256,
        "weights_sha256": {key: file_hash(file) for key, file in weights.items()},
        "versions": {
            "mrda": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "basicsr", "numpy")},
            "opencv": cv2.__version__,  # of whichever of its packages is installed
        },
    }
    write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", path)


def write_markdown(title: str, parts: list[str], panels: list[Path], path: Path) -> None:
    """Title, parts (tables, notes) and panels, one below the other."""
    pictures = [f"![{panel.stem}]({quote(panel.relative_to(path.parent).as_posix())})" for panel in panels]
    write_text("\n\n".join([f"# {title}", *parts, *pictures]) + "\n", path)


def markdown(tables: list[Table]) -> str:
    """Tables with the best values in bold."""
    return text_of(tables, "github", lambda text: f"**{text}**")


_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
)


def latex(tables: list[Table]) -> str:
    """Tables for a paper in LaTeX with the package booktabs, the best values in bold."""
    return "\n".join(["% \\usepackage{booktabs}", *map(_latex_table, tables)])


def _latex_table(table: Table) -> str:
    caption = f"{table.title}. {table.note}" if table.note else f"{table.title}."
    cells = cell_texts(
        table._replace(rows=[[_escaped(value) for value in row] for row in table.rows]),
        lambda text: f"\\textbf{{{text}}}",
    )
    lines = [" & ".join(row) + r" \\" for row in ([_escaped(header) for header in table.headers], *cells)]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{_escaped(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escaped(value: object) -> object:
    return value.translate(_LATEX) if isinstance(value, str) else value
