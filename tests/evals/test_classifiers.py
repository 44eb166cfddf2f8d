"""Baselines of classifying windows, and the scores of classifiers."""

import numpy as np
import pytest

from tsmjax.evals import classifiers
from tsmjax.evals.classification import classification_scores, confusion
from tsmjax.evals.classifiers import Part


def test_scores_count_all_classes():
    # Class 2 is never predicted, class 3 neither there nor predicted.
    labels, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    counts = confusion(labels, predicted, 4)
    assert counts.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    halves = confusion(labels[:3], predicted[:3], 4) + confusion(labels[3:], predicted[3:], 4)
    assert halves.tolist() == counts.tolist()
    scores = classification_scores(counts)
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["f1_class_0"] == pytest.approx(2 / 3)
    assert scores["f1_class_1"] == pytest.approx(0.8)
    assert scores["f1_class_2"] == scores["f1_class_3"] == scores["precision_class_2"] == 0.0
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 0.8) / 4)
    assert scores["f1_macro_present"] == pytest.approx((2 / 3 + 0.8) / 3)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_scores_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 200)
    predicted = np.where(rng.random(200) < 0.5, labels, rng.integers(0, 5, 200))
    scores = classification_scores(confusion(labels, predicted, 5))
    for name, function in (("f1", "f1_score"), ("precision", "precision_score")):
        values = getattr(metrics, function)(labels, predicted, average=None)
        np.testing.assert_allclose([scores[f"{name}_class_{i}"] for i in range(5)], values)
        assert scores[f"{name}_macro"] == pytest.approx(values.mean())
    assert scores["kappa"] == pytest.approx(metrics.cohen_kappa_score(labels, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, predicted)
    )


def test_summaries_are_five_numbers_a_channel():
    window = np.array([[[0.0, 2, 1, 5], [3, 3, 3, 3]]])
    found = classifiers.summaries(window)[0]
    np.testing.assert_allclose(found[0::2], [2, np.sqrt(3.5), 0, 5, 7 / 3], rtol=1e-6)
    np.testing.assert_allclose(found[1::2], [3, 0, 3, 3, 0])
    scaled = classifiers.standardised(
        {"train": np.array([[0.0, 4], [2, 4]]), "test": np.ones((1, 2))}
    )
    np.testing.assert_allclose(scaled["train"], [[-1, 0], [1, 0]])
    np.testing.assert_allclose(scaled["test"], [[0, -3]])


def test_weights_leave_absent_classes_out():
    weights = classifiers.class_weights(np.array([0, 0, 0, 2]), 4)
    np.testing.assert_allclose(weights, [4 / 6, 0, 2, 0])


def blobs(rows, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows).astype(np.int32)
    centres = np.array([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    return Part((centres[y] + rng.normal(size=(rows, 4))).astype(np.float32), y)


def test_the_linear_model_is_the_one_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    train, test = blobs(150, 0), blobs(300, 1)
    predict = classifiers.linear(train, None, 3, l2=(0.05,), balanced=False)
    reference = linear_model.LogisticRegression(C=1 / (0.05 * len(train)), tol=1e-8, max_iter=500)
    reference.fit(train.x, train.y)
    kernel = predict.__defaults__[0]["kernel"]
    np.testing.assert_allclose(kernel.T, reference.coef_, atol=2e-3)
    assert (predict(test.x) == reference.predict(test.x)).mean() > 0.99


def test_validation_chooses_the_penalty():
    # Two rows of noise per dimension: without a penalty the model learns them by heart.
    rng = np.random.default_rng(3)

    def part(rows):
        y = rng.integers(0, 2, rows).astype(np.int32)
        noise = rng.normal(size=(rows, 40))
        return Part(np.c_[2.0 * y - 1 + rng.normal(size=rows), noise].astype(np.float32), y)

    train, validation = part(60), part(400)
    scores = {
        l2: classifiers.evaluate(classifiers.linear(train, None, 2, (l2,)), validation, 2)
        for l2 in (1e-5, 1.0)
    }
    assert scores[1.0]["f1_macro"] > scores[1e-5]["f1_macro"] + 0.02
    chosen = classifiers.linear(train, validation, 2, (1e-5, 1.0))
    assert classifiers.evaluate(chosen, validation, 2) == scores[1.0]


def test_majority_and_the_table():
    train, test = blobs(50, 0), blobs(40, 1)
    predict = classifiers.majority(train, 3)
    assert (predict(test.x) == np.bincount(train.y).argmax()).all()
    scores = classifiers.evaluate(predict, test, 3)
    text = classifiers.table({"majority": scores, "x": scores}, ("accuracy", "f1_macro"))
    assert text.splitlines()[0].split() == ["classifier", "accuracy", "f1_macro"]
    assert text.splitlines()[1].split()[1] == f"{100 * scores['accuracy']:.1f}"


def rhythms(rows, seed):
    """Class = frequency, whatever the phase: no linear model of the steps tells them apart."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows, dtype=np.int32) % 3
    phase = rng.uniform(0, 2 * np.pi, (rows, 1))
    wave = np.sin(2 * np.pi * np.array([2, 4, 7])[y][:, None] * np.linspace(0, 1, 32) + phase)
    x = np.stack([wave, rng.normal(size=wave.shape)], axis=1)
    return Part(x.astype(np.float32), y)


def test_the_cnn_learns_rhythms():
    train, validation, test = rhythms(96, 0), rhythms(48, 1), rhythms(99, 2)
    predict = classifiers.cnn(train, validation, 3, 12, batch=16, learning_rate=1e-2, width=8)
    assert classifiers.evaluate(predict, test, 3)["accuracy"] > 0.95
