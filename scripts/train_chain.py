"""Train all stages of a chain file in one command, on photographs of your own if you like.

    python scripts/train_chain.py -opt options/demo/chain.yml
    python scripts/train_chain.py -opt options/demo/chain.yml --data my_photos/ --name mine

The same command goes on where an earlier one ended: a stage that is complete is left alone, one that was interrupted
resumes from its last checkpoint. More: docs/training.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone runs its own code, installed or not

import mrda_utils.openmp  # noqa: F401  (before torch)

import json
import os

import mrda_loss  # noqa: F401  (these imports register what option files name)
import mrda_model  # noqa: F401
from mrda_pipeline.chain import Chain, read_runs, run_options, train, weights_path
from mrda_utils.arguments import argument_parser
from mrda_utils.errors import OptionError, UserError, run

ROOT = Path(__file__).resolve().parents[1]
AGAIN = "the same command goes on from the last checkpoint"


def main(argv: list[str] | None = None) -> None:
    """Train the stages one after the other."""
    parser = argument_parser(__doc__)
    parser.add_argument("-opt", type=Path, required=True, help="chain file (YAML)")
    parser.add_argument("--data", help="folder of HR photographs to train on; by default that of the option files")
    parser.add_argument("--name", help="of this chain, the first part of its runs' names; by default the chain file's")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="change options of every run, as in train.py"
    )
    args = parser.parse_args(argv)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("torchrun: it starts the processes of one stage, so take train.py; or set num_processes here")
    chain = read_runs(args.opt, Chain, "-opt")
    forced = [
        *args.force_yml,
        *([f"datasets:train:dataroot_gt={json.dumps(folder_of(args.data))}"] if args.data else []),
    ]
    name = args.name or chain.name
    options = [
        run_options(own, variant, args.opt.parent, chain.scale, lambda other: f"{name}_{other}_x{chain.scale}", forced)
        for own, variant in chain.runs.items()
    ]
    weights = [weights_path(opt, ROOT) for opt in options]
    for number, opt in enumerate(options, 1):
        print(f"stage {number} of {len(options)}: {opt['name']}", flush=True)  # noqa: T201
        train(opt, ROOT, weights[0].parents[2] / f"{name}_chain")
    print(f"\n{[*chain.runs][-1]}: {weights[-1]}")  # noqa: T201
    print(f"try it:  python inference.py -i photo.jpg -o out/ --weights {weights[-1]}")  # noqa: T201


def folder_of(data: str) -> str:
    """`--data` as option files name it.

    Raises:
        OptionError: there is no such folder.
    """
    if data.startswith("bundled:"):
        return data
    folder = Path(data).expanduser().resolve()
    if not folder.is_dir():
        raise OptionError(f"--data {data}: no such folder")
    return str(folder)


if __name__ == "__main__":
    run(main, interrupted=f"interrupted; {AGAIN}")
