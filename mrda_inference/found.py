"""What a network found in a photograph, read off its implicit degradation representation (IDR); and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mrda_inference.known_degradations import KEYS, Known

SURE = 0.9  # of photographs that were not learnt from, what is said is then nearly always right: docs/figures.md
YES = {
    "blur": "blurred, about {:.1f} pixels of the enlarged picture".format,
    "noise": "noisy".format,
    "jpeg": lambda quality: f"JPEG artefacts, about quality {min(max(round(quality, -1), 10), 90):.0f}",
}
NAMES = {"blur": "blur", "noise": "noise", "jpeg": "JPEG artefacts"}


class Found(NamedTuple):
    """One kind of degradation in a photograph."""

    is_there: bool | None
    """True: it is; False: not strongly; None: not sure."""
    amount: float
    """How strong, if it is: width, pixels; standard deviation, of 255; quality."""


class Finder:
    """Linear probes of IDRs, learnt from known degradations: is a kind there (logistic), how strong is it (ridge).

    Args:
        known: every combination of the kinds, with IDRs of one network.
    """

    def __init__(self, known: list[Known]) -> None:
        idrs = torch.cat([one.idrs for one in known]).numpy()
        self._probes = {}
        for kind, key in KEYS.items():
            if not any(key in one.task for one in known):
                continue
            amounts = np.concatenate([np.full(len(one.idrs), one.task.get(key, np.nan)) for one in known])
            there = ~np.isnan(amounts)
            presence = make_pipeline(
                StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
            )
            amount = make_pipeline(StandardScaler(), Ridge(30.0))
            self._probes[kind] = presence.fit(idrs, there), amount.fit(idrs[there], amounts[there])

    def find(self, idr: Tensor) -> dict[str, Found]:
        """What is in a photograph of this IDR (1, 4 w), by kind; kinds that were not learnt are missing.

        Noise counts as unsure unless JPEG is denied: strong JPEG alone has looked like noise.
        """
        row, found = idr.float().cpu().numpy(), {}
        for kind, (presence, amount) in self._probes.items():
            share = presence.predict_proba(row)[0, 1]
            is_there = None if 1 - SURE <= share <= SURE else bool(share > SURE)
            found[kind] = Found(is_there, float(amount.predict(row)[0]))
        if found.get("noise") and found["noise"].is_there and found["jpeg"].is_there is not False:
            found["noise"] = found["noise"]._replace(is_there=None)
        return found


def words(found: Mapping[str, Found]) -> str:
    """What was found, for a reader who knows nothing of networks: no more than is sure."""
    if len(found) == len(KEYS) and all(kind.is_there is False for kind in found.values()):
        return "looks clean: no strong blur, noise or JPEG artefacts"
    parts = [YES[kind](one.amount) for kind, one in found.items() if one.is_there]
    for start, kinds in (
        ("no strong ", [kind for kind, one in found.items() if one.is_there is False]),
        ("not sure about ", [kind for kind, one in found.items() if one.is_there is None]),
        ("not looked for: ", [kind for kind in KEYS if kind not in found]),
    ):
        if kinds:
            names = [NAMES[kind] for kind in kinds]
            parts.append(start + " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names))
    return "; ".join(parts)
