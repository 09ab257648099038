"""ROC and precision-recall curves of each class against the others."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.evaluation.jackknife import Floats


@dataclass(frozen=True)
class Curve:
    """ROC and precision-recall curve of a class against the others."""

    false_positive_rate: Floats
    true_positive_rate: Floats
    recall: Floats
    precision: Floats

    @classmethod
    def of(cls, of_class: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]) -> "Curve":
        """Return the curves of a class that some tiles have and others do not.

        Points as scikit-learn's ``roc_curve`` and ``precision_recall_curve`` have them, whose
        import takes a second; of a ROC curve those between others on one line are left out.

        Parameters
        ----------
        of_class
            Which tiles are of the class, shape (tiles,).
        probability
            Of the class, shape (tiles,).

        Examples
        --------
        >>> curve = Curve.of(np.array([True, False, True]), np.float32([0.9, 0.5, 0.2]))
        >>> curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist()
        ([0.0, 0.0, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0])
        >>> curve.recall.tolist(), curve.precision.round(2).tolist()
        ([1.0, 0.5, 0.5, 0.0], [0.67, 0.5, 1.0, 1.0])
        """
        order = np.argsort(-probability, kind="stable")
        last = np.flatnonzero(np.diff(probability[order], append=np.nan))  # of equal probability
        true = of_class[order].cumsum()[last]
        false = 1 + last - true
        precision = np.append((true / (true + false))[::-1], 1.0)
        recall = np.append((true / true[-1])[::-1], 0.0)
        turns = (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0)
        kept = np.flatnonzero(np.concatenate([[True], turns, [True]])[: len(true)])
        return cls(
            np.insert(false[kept] / false[-1], 0, 0.0), np.insert(true[kept] / true[-1], 0, 0.0),
            recall, precision,
        )  # fmt: skip
