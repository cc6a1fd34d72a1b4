"""1,001 random classifications, judged here and by scikit-learn: no figure may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from torch import Tensor

from deepepochs.metrics import accuracy, confusion_matrix, f1, fbeta, precision, recall

CASES = 143  # for each of 7 numbers of classes
AVERAGES = ("micro", "macro", "weighted")
AVERAGES_OF_TWO = ("micro", "macro", "weighted", "binary")
TOLERANCE = 1e-6


def draw(rng: np.random.Generator, num_classes: int) -> tuple[Tensor, Tensor]:
    """Scores and targets; half of the time some classes occur in neither or in one of the two."""
    num_samples = int(rng.integers(1, 60))
    scores = rng.normal(size=(num_samples, num_classes))
    present = rng.random(num_classes) < (0.5 if rng.random() < 0.5 else 1.0)
    present[rng.integers(num_classes)] = True
    targets = rng.choice(np.flatnonzero(present), size=num_samples)
    if rng.random() < 0.5:
        scores[:, rng.integers(num_classes)] -= 10.0  # a class that is never predicted
    right = rng.random(num_samples) < rng.random()
    scores[right, targets[right]] += 5.0
    return torch.from_numpy(scores), torch.from_numpy(targets)


def expected(
    scores: Tensor, targets: Tensor, average: str, beta: float
) -> tuple[float, float, float]:
    num_classes = scores.shape[1]
    how: dict[str, Any] = {"average": average, "labels": range(num_classes)}
    if average == "binary":
        how = {"average": average, "pos_label": 1}
    p, r, f, _ = reference.precision_recall_fscore_support(
        targets.numpy(), scores.argmax(1).numpy(), beta=beta, zero_division=0, **how
    )
    return float(p), float(r), float(f)


@pytest.mark.parametrize("num_classes", range(2, 9))
def test_every_metric_agrees_with_scikit_learn(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    worst = 0.0
    absent = 0
    for case in range(CASES):
        scores, targets = draw(rng, num_classes)
        absent += len(set(targets.tolist())) < num_classes
        pred_ids = scores.argmax(1)
        matrix = confusion_matrix(scores, targets)
        labels = list(range(num_classes))
        theirs = reference.confusion_matrix(targets.numpy(), pred_ids.numpy(), labels=labels)
        assert matrix.tolist() == theirs.tolist()
        share = reference.accuracy_score(targets.numpy(), pred_ids.numpy())
        pairs = [(accuracy(scores, targets), share), (accuracy(conf_mat=matrix), share)]
        averages = AVERAGES_OF_TWO if num_classes == 2 else AVERAGES
        average, beta = averages[case % len(averages)], (1.0, 0.5, 2.0)[case // 4 % 3]
        p, r, f = expected(scores, targets, average, beta)
        for given in ({"preds": scores, "targets": targets}, {"conf_mat": matrix}):
            pairs += [
                (precision(**given, average=average), p),
                (recall(**given, average=average), r),
                (fbeta(**given, beta=beta, average=average), f),
            ]
            if beta == 1.0:
                pairs.append((f1(**given, average=average), f))
        worst = max(worst, *(abs(ours.item() - other) for ours, other in pairs))
    assert absent > CASES / 8, "the cases must contain absent classes"
    assert worst <= TOLERANCE


@pytest.mark.parametrize("column", [False, True])
def test_probabilities_of_class_one_agree_with_scikit_learn(column: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        num_samples = int(rng.integers(1, 40))
        probabilities = rng.random(num_samples)
        targets = (rng.random(num_samples) < rng.random()).astype(np.int64)
        p, r, f, _ = reference.precision_recall_fscore_support(
            targets, probabilities > 0.5, average="binary", zero_division=0
        )
        preds, labels = torch.from_numpy(probabilities), torch.from_numpy(targets)
        if column:
            preds, labels = preds[:, None], labels[:, None]
        assert precision(preds, labels).item() == pytest.approx(p, abs=TOLERANCE)
        assert recall(preds, labels).item() == pytest.approx(r, abs=TOLERANCE)
        assert f1(preds, labels, average="binary").item() == pytest.approx(f, abs=TOLERANCE)


def test_segmentation_agrees_with_its_flattened_pixels() -> None:
    scores, targets = torch.randn(2, 4, 5, 6), torch.randint(4, (2, 5, 6))
    theirs = reference.confusion_matrix(
        targets.flatten().numpy(), scores.argmax(1).flatten().numpy(), labels=list(range(4))
    )
    assert confusion_matrix(scores, targets).tolist() == theirs.tolist()


def test_sum_of_batch_matrices_gives_scikit_learns_value_of_the_whole() -> None:
    scores, targets = torch.randn(50, 5), torch.randint(5, (50,))
    pieces = zip(scores.split(7), targets.split(7), strict=True)
    total = torch.stack([confusion_matrix(s, t) for s, t in pieces]).sum(0)
    theirs = reference.f1_score(targets.numpy(), scores.argmax(1).numpy(), average="macro")
    assert f1(conf_mat=total, average="macro").item() == pytest.approx(theirs, abs=TOLERANCE)
