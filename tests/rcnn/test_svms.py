"""SVMs against scikit-learn's other solver, and mining against learning from all negatives at once."""

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from minircnn.rcnn import EASY, HARD, SVMSettings, margins, mine_hard_negatives, train_svm


def clouds(positives, negatives, distance=1.5, size=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    shift = torch.zeros(size)
    shift[0] = distance
    return (
        torch.randn(positives, size, generator=random) + shift,
        torch.randn(negatives, size, generator=random) - shift,
    )


def objective(weights, positives, negatives, settings):
    """What LinearSVC minimises: size of weights and scaled bias, and hinge losses (liblinear's documentation)."""
    size = 0.5 * (weights[:-1].square().sum() + (weights[-1] / settings.bias_scale).square())
    positive = (1 - margins(positives, weights)).clamp(min=0).sum() * settings.positive_weight
    negative = (1 + margins(negatives, weights)).clamp(min=0).sum()
    return float(size + settings.cost * (positive + negative))


def test_equals_libsvm():
    """SVC solves the same problem with another algorithm; it leaves the bias out of the size, hence the large scale."""
    settings = SVMSettings(cost=0.05, bias_scale=10.0)
    positives, negatives = clouds(40, 200)
    machine = SVC(C=settings.cost, kernel="linear", class_weight={1: settings.positive_weight, 0: 1.0}, tol=1e-6)
    machine.fit(torch.cat([positives, negatives]).numpy(), np.repeat([1, 0], [40, 200]))
    weights = train_svm(positives, negatives, settings)
    np.testing.assert_allclose(weights[:-1], machine.coef_[0], atol=2e-2)
    np.testing.assert_allclose(weights[-1], machine.intercept_[0], atol=2e-2)


def test_is_a_minimum_of_the_papers_objective():
    settings = SVMSettings()
    positives, negatives = (20 * part for part in clouds(30, 300, distance=0.7))
    weights = train_svm(positives, negatives, settings)
    least = objective(weights, positives, negatives, settings)
    random = torch.Generator().manual_seed(1)
    for step in (1e-1, 1e-2):
        for _ in range(50):
            other = weights + step * weights.norm() * torch.randn(len(weights), generator=random)
            assert objective(other, positives, negatives, settings) > least - 1e-4 * least


def test_both_kinds_are_needed():
    positives, negatives = clouds(3, 3)
    with pytest.raises(ValueError, match="0 positives, 3 negatives"):
        train_svm(positives[:0], negatives, SVMSettings())
    with pytest.raises(ValueError, match="3 positives, 0 negatives"):
        train_svm(positives, negatives[:0], SVMSettings())


def pages(features, negative, count):
    """The data as so many pictures."""
    return lambda: zip(features.chunk(count), negative.chunk(count), strict=True)


def test_mining_finds_the_machine_that_all_negatives_make():
    """The point of it: what is not hard has no influence on the solution."""
    settings = SVMSettings(cost=0.01, retrain_after=100)
    positives, negatives = clouds(60, 3000, distance=1.2)
    everything = train_svm(positives, negatives, settings)
    weights, (record,) = mine_hard_negatives(
        [positives], pages(negatives, torch.ones(3000, 1, dtype=torch.bool), 30), settings
    )
    torch.testing.assert_close(weights[0], everything, atol=1e-3, rtol=1e-3)
    # and it never held them all
    assert max(record.negatives) < 500
    assert record.positives == 60
    torch.testing.assert_close(record.weights[-1], weights[0])


def test_one_pass_makes_better_margins_than_the_first_negatives_alone():
    settings = SVMSettings(cost=0.01, retrain_after=50)
    positives, negatives = clouds(60, 2000, distance=0.6)
    negatives[:200] -= 4  # the first pictures show nothing that looks like the class
    weights, (record,) = mine_hard_negatives(
        [positives], pages(negatives, torch.ones(2000, 1, dtype=torch.bool), 40), settings
    )
    before, after = ((margins(negatives, w) > HARD).float().mean() for w in (record.weights[0], weights[0]))
    assert after < 0.7 * before


def test_each_class_has_its_own_negatives():
    """Class 0 must not learn from what only class 1 may take as a negative."""
    positives, negatives = clouds(20, 100)
    other = -negatives
    features = torch.cat([negatives, other])
    allowed = torch.zeros(200, 2, dtype=torch.bool)
    allowed[:100, 0] = True
    allowed[100:, 1] = True
    settings = SVMSettings(cost=1.0)
    weights, records = mine_hard_negatives([positives, -positives], pages(features, allowed, 5), settings)
    torch.testing.assert_close(weights[0], train_svm(positives, negatives, settings))
    torch.testing.assert_close(weights[1], train_svm(-positives, other, settings))
    assert [r.negatives[0] for r in records] == [100, 100]


def test_a_negative_is_taken_once_and_easy_ones_go():
    settings = SVMSettings(cost=0.01, retrain_after=10_000, passes=3)
    positives, negatives = clouds(30, 400, distance=1.0)
    _, (record,) = mine_hard_negatives([positives], pages(negatives, torch.ones(400, 1, dtype=torch.bool), 4), settings)
    # Without a machine every negative is hard. In later passes the hard ones are there already.
    assert record.found == [400]
    assert EASY < HARD


def test_no_negatives_at_all_is_an_error():
    positives, negatives = clouds(5, 5)
    with pytest.raises(ValueError, match="0 negatives"):
        mine_hard_negatives([positives], pages(negatives, torch.zeros(5, 1, dtype=torch.bool), 1), SVMSettings())
