"""What each held-out row adds to each metric of each model, kept beside scores.json: pairs need rows, not means.

Whoever compares two runs, breaks a score down or draws the rows' differences reads them here, without a network.
"""

import gzip
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mlxtune.errors import RunError
from mlxtune.evaluation.measured import Measured
from mlxtune.runs.folder import RunFolder

RowScores = Mapping[str, Mapping[str, Measured]]
"""By model, ``base``, ``tuned`` or another one's label, and by metric."""


def read_row_scores(run: RunFolder) -> dict[str, dict[str, Measured]]:
    """What each row adds, by model (``base``, ``tuned``, or a label of scores.json's ``against``) and by metric.

    Raises: RunError, if it is not there, not as it was written, or not of what scores.json holds.
    """
    remedy = f"score the run again: mlxtune evaluate {run.path} --force"
    scores = run.read_scores()
    try:
        content = json.loads(gzip.decompress(run.row_scores.read_bytes()))
        if scores is None or content["basis_sha256"] != hash_of_basis(scores["basis"]):
            raise RunError("the rows' scores are not those of scores.json", where=run.row_scores, remedy=remedy)
        return {
            model: {metric: Measured.from_json(one) for metric, one in metrics.items()}
            for model, metrics in content["models"].items()
        }
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"the rows' scores cannot be read: {error}", where=run.row_scores, remedy=remedy) from error


def pack_row_scores(scores: RowScores, basis: Mapping[str, Any]) -> bytes:
    """The content of row_scores.json.gz; the same bytes for the same scores."""
    models = {model: {metric: one.to_json() for metric, one in metrics.items()} for model, metrics in scores.items()}
    content = {"basis_sha256": hash_of_basis(basis), "models": models}
    return gzip.compress(json.dumps(content).encode(), mtime=0)


def hash_of_basis(basis: Mapping[str, Any]) -> str:
    """By which the rows' scores know whether scores.json is of the same reading."""
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()
