"""How well a linear support vector machine tells two kinds of images by features."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["separability"]

_CHOICES = (1e-4, 1e-3, 1e-2, 1e-1)  # of C, chosen by a fifth of the training images


def separability(
    features: npt.NDArray[np.float32], kinds: npt.NDArray[np.int64],
    asked: npt.NDArray[np.float32], truth: npt.NDArray[np.int64],
) -> dict[str, float] | None:  # fmt: skip
    """Train on features of two kinds of images and count what it says of others.

    Args:
        features, kinds: of training, [N, F] and 0 or 1 [N].
        asked, truth: of the others.
    Returns:
        `accuracy`; `balanced_accuracy`, the mean of both kinds' own; `always`, the accuracy of always naming the more
        frequent kind, below which an accuracy says nothing. None if scikit-learn is not installed or a kind is missing.
    Source: supplementary, section 4 and table 4, which gives accuracies of an unbalanced set.
    """
    try:
        from sklearn.metrics import balanced_accuracy_score
        from sklearn.svm import LinearSVC
    except ImportError:
        return None
    if len(np.unique(kinds)) < 2 or len(np.unique(truth)) < 2:
        return None
    centre, scale = features.mean(0), features.std(0) + 1e-6
    x, y = (features - centre) / scale, (asked - centre) / scale
    check = np.arange(len(x)) % 5 == 0

    def trained(c: float, rows: npt.NDArray[np.bool_]) -> Any:
        return LinearSVC(C=c, class_weight="balanced", dual=True, max_iter=5000, random_state=0).fit(
            x[rows], kinds[rows]
        )

    def score(c: float) -> float:
        return float(balanced_accuracy_score(kinds[check], trained(c, ~check).predict(x[check])))

    best = max(_CHOICES, key=score)
    said = trained(best, np.ones(len(x), np.bool_)).predict(y)
    share = float(truth.mean())
    return {
        "accuracy": float((said == truth).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(truth, said)),
        "always": max(share, 1 - share),
        "c": best,
    }
