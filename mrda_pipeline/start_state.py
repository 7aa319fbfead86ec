"""The training state that a run resumes, if any."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mrda_model import training_state
from mrda_model.frozen import degradation_name
from mrda_model.weights import Provenance
from mrda_options.command_line import Run
from mrda_utils import checkpoint


class StartState(NamedTuple):
    """Where a run begins."""

    path: Path | None
    state: dict | None
    damaged: list[str]
    """What is wrong with newer states, which are skipped."""

    @property
    def iteration(self) -> int:
        """Iterations that are done."""
        return self.state["iter"] if self.state else 0


def find_start(run: Run) -> StartState:
    """With --auto_resume, this run's newest state that can be read, weights included; else `path.resume_state`.

    Raises:
        CheckpointError: there are states, and none can be read.
    """
    damaged = []
    for path in training_state.states(Path(run.opt["path"]["training_states"])) if run.auto_resume else []:
        try:
            state = training_state.load_state(path)
            for weights in weights_of_state(run, path):
                checkpoint.load(weights)
        except checkpoint.CheckpointError as error:
            damaged.append(str(error))
            print(f"warning: {error}; looking for an earlier state")  # noqa: T201
        else:
            return StartState(path, state, damaged)
    if "resume_state" in run.opt["path"]:
        path = Path(run.opt["path"]["resume_state"])
        return StartState(path, training_state.load_state(path), damaged)
    if damaged:
        raise checkpoint.CheckpointError(
            f"--auto_resume: no checkpoint of {run.opt['path']['run']} can be used; {damaged[0]}; repair or delete "
            "them, or start without --auto_resume, which moves the run aside and starts over"
        )
    return StartState(None, None, damaged)


def _labels(opt: dict) -> tuple[str, ...]:
    """Of the networks that a run trains."""
    return ("g", "d") if "network_d" in opt else ("g",)


def weights_of_state(run: Run, state_path: Path) -> list[Path]:
    """Files of the weights that belong to a state of this run."""
    return [training_state.network_of_state(state_path, label) for label in _labels(run.opt)]


def is_finished(opt: dict, start: StartState) -> bool:
    """Whether nothing is left to do for this run, not even a validation or its last weights."""
    total, models = opt["train"]["total_iter"], Path(opt["path"]["models"])
    if start.state is None or start.path.parent != Path(opt["path"]["training_states"]):
        return False
    provenance = Provenance(opt["model_type"], opt["scale"], degradation_name(opt["degradation"]))
    if start.state["mrda"] != provenance._asdict():
        return False  # of another training, which is refused
    validated = len(opt["datasets"]) == 1 or start.state["validated_iter"] == total
    latest = [models / f"net_{label}_latest.pth" for label in _labels(opt)]
    if not validated or start.iteration < total or not all(path.is_file() for path in latest):
        return False
    return all(checkpoint.load(path)["mrda"]["iteration"] == total for path in latest)
