"""Is the label that the model finds likeliest the reference?

The model writes nothing: which label it chooses is worked out from likelihoods (`inference/choice.py`), so that no
answer is wrong for its form, and none is none of the labels. As a reward, ``output`` may as well be a text that was
written. Figures of many rows, macro F1 and the confusion matrix, are made of the chosen labels
(`evaluation/classes.py`).
"""

PRIMARY = "accuracy"


def score(output: str, reference: str, *, where: object = None) -> dict[str, float]:  # noqa: ARG001 - every scorer has it
    """Score one label: ``accuracy``, 0 or 1; white space at the ends means nothing."""
    return {PRIMARY: float(output.strip() == reference.strip())}
