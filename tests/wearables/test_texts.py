"""Sentences about windows, and exact scores of listings."""

import re
import subprocess
import sys

import numpy as np
import pytest

from tsmjax.wearables import alignment, texts

NAMES = ("x-axis accelerometer", "y-axis accelerometer", "z-axis accelerometer")
WINDOW = np.float32([[1, 2, 2, 3, 1], [5, 5, 5, 5, 5], [1, 2, 3, 4, 5]])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_statistics_are_population_ones_without_zeros_at_the_end():
    lines = texts.statistics_text(WINDOW, NAMES, rng()).splitlines()
    assert lines[1:] == [
        "x-axis accelerometer: Mean=1.8, StdDev=0.74833148",
        "y-axis accelerometer: Mean=5, StdDev=0",
        "z-axis accelerometer: Mean=3, StdDev=1.41421356",
    ]


def test_trends_are_maximal_runs():
    found = texts.segments(WINDOW[0])
    assert found.kinds.tolist() == [1, 0, 1, -1]
    assert found.first.tolist() == [0, 1, 2, 3]
    assert found.last.tolist() == [1, 2, 3, 4]
    assert texts.segments(np.array([2.0, 2.0])).kinds.tolist() == [0]
    assert texts.durations(found, 2.0) == {"fall": 0.5, "rise": 1.0, "steady": 0.5}


@pytest.mark.parametrize("seed", range(6))
def test_trend_sentences_tell_the_numbers(seed):
    lines = texts.trend_text(WINDOW, NAMES, 2.0, rng(seed)).splitlines()
    assert [line.split(":")[0] for line in lines] == list(NAMES)
    down, up, level = (
        re.search(rf"\b({'|'.join(texts.WORDS[kind])}) for ", lines[0])[1]
        for kind in ("fall", "rise", "steady")
    )
    assert texts.WORDS["fall"].index(down) == texts.WORDS["rise"].index(up)
    assert f"{down} for 0.5 s, {up} for 1 s and {level} for 0.5 s" in lines[0]
    assert re.search(r"\b(4|four) segments", lines[0])
    assert re.search(r"\b(3|three) kinds", lines[0])
    assert "sideways" in lines[0]  # it ends where it began
    assert f"{level} for 2 s" in lines[1]
    assert "sideways" not in lines[1]  # one segment has no other direction


@pytest.mark.parametrize(
    ("r", "phrase"),
    [
        (1.0, "strongly positively"),
        (0.7, "strongly positively"),
        (0.69, "moderately positively"),
        (-0.3, "moderately negatively"),
        (-0.1, "weakly negatively"),
        (0.09, "not significantly"),
    ],
)
def test_correlation_has_seven_grades(r, phrase):
    assert texts.correlation_phrase(r) == phrase


def test_a_constant_channel_is_correlated_with_nothing():
    lines = texts.correlation_text(WINDOW, NAMES, rng()).splitlines()[1:]
    assert len(lines) == 3
    assert all("not significantly" in line for line in lines if NAMES[1] in line)
    both = texts.correlation_text(np.stack([WINDOW[2], -WINDOW[2]]), NAMES[:2], rng())
    assert "strongly negatively" in both


def test_texts_are_the_same_in_every_process():
    first = texts.stage2(WINDOW, NAMES, 2.0, 7, "P001/3")
    assert first != texts.stage2(WINDOW, NAMES, 2.0, 7, "P001/4")
    assert first != texts.stage2(WINDOW, NAMES, 2.0, 8, "P001/3")
    code = (
        "import numpy as np; from tsmjax.wearables import texts;"
        f"print(texts.stage2(np.float32({WINDOW.tolist()}), {NAMES}, 2.0, 7, 'P001/3'))"
    )
    again = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert again.strip() == str(first)


def test_questions_count_channels_in_digits_or_words():
    asked = {texts.question(6, rng(seed)) for seed in range(60)}
    assert len(asked) > 15
    assert all(re.search(r"\b(6|six|Six)\b", text) for text in asked)


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "zero"), (17, "seventeen"), (40, "forty"), (303, "three hundred three"), (1200, "1200")],
)
def test_numbers_in_words(number, words):
    assert texts.in_words(number) == words


def test_small_numbers_have_no_minus_sign():
    assert texts.decimal(-1e-12) == "0"
    assert texts.decimal(1000.0) == "1000"


# ------------------------------------------------------------------------------------------ stage 1


@pytest.mark.parametrize("rate", [1.0101, 50.0, 100.0, 1000.0])
def test_a_right_listing_scores_full_marks_in_every_form(rate):
    generator, forms = rng(), set()
    for number in range(40):
        values = generator.normal(size=60).round(0)
        answer = alignment.ask(values, NAMES[0], rate, "trend", 0, str(number))["A"]
        forms.add(re.sub(r"[\d.]+|\w+ing|\w+ward|steady|constant|flat", "", answer.split("\n")[0]))
        scores = alignment.listing_scores(alignment.listing_sums(answer, values, rate))
        assert scores == {
            **{"parsed": 1.0, "boundary_f1": 1.0, "trend_accuracy": 1.0},
            "duration_error": pytest.approx(0.0),
        }
    assert len(forms) == 6


def test_wrong_listings_lose_what_is_wrong():
    values = np.array([0, 1, 2, 3, 2, 1, 0.0, 0, 0])  # 3 up, 3 down, 2 level
    listing = "0s to 3s: rising\n3s to 6s: falling\n6s to 8s: steady"

    def scores(answer):
        return alignment.listing_scores(alignment.listing_sums(answer, values, 1.0))

    assert scores(listing)["boundary_f1"] == 1.0
    wrong_word = scores(listing.replace("falling", "climbing"))
    assert wrong_word["trend_accuracy"] == pytest.approx(5 / 8)
    assert wrong_word["duration_error"] == pytest.approx(6 / 8)
    assert wrong_word["boundary_f1"] == 1.0
    late = scores(listing.replace("3s", "4s"))
    assert late["boundary_f1"] == pytest.approx(0.5)
    assert late["trend_accuracy"] == pytest.approx(7 / 8)
    assert late["duration_error"] == pytest.approx(2 / 8)
    assert scores("It rises and falls.") == {
        **{"parsed": 0.0, "boundary_f1": 0.0, "trend_accuracy": 0.0, "duration_error": 1.0}
    }
    backwards = alignment.parse_listing(
        "5s to 3s: rising\n0 s - 2 s: FLAT\nNumber of flat segments: 1"
    )
    assert backwards.kinds.tolist() == [0]
    parts = [alignment.listing_sums(text, values, 1.0) for text in (listing, "")]
    assert alignment.listing_scores(alignment.total(parts))["trend_accuracy"] == 0.5


def test_listings_count_segments_of_each_kind():
    answer = alignment.ask(WINDOW[0], "x", 1.0, "trend", 3, "a")["A"]
    listing, _, summary = answer.partition("\n\n")
    assert sorted(re.findall(r"\b\d+\b", "\n".join(listing.splitlines()[4:]))) == ["1", "1", "2"]
    assert re.search(r"\b4 seconds", summary)
    single = alignment.ask(WINDOW[2], "x", 1.0, "trend", 3, "a")["A"]
    assert len(single.partition("\n\n")[0].splitlines()) == 1


def test_short_questions_have_exact_answers():
    values = np.array([0.0, 2, 1, 1, 5, 4])
    found = {}
    for number in range(60):
        pair = alignment.ask(values, "x", 2.0, "question", 0, str(number))
        found[pair["Q"]] = pair["A"]
    assert len(found) == 5
    assert found["How many segments of one trend does the x have?"] == "5"
    assert found["When does the x first reach its highest reading, in seconds?"] == "2"
    assert found["When does the x first reach its lowest reading, in seconds?"] == "0"
    assert found["Does the x end above or below where it began, or level?"] == "upward"
    assert set(found.values()) >= {"falling"}  # tied with rising: the first in the alphabet


def test_pieces_cover_one_activity_each():
    labels = np.array([0] * 100 + [-1] * 20 + [1] * 57 + [2] * 4)
    found = alignment.random_pieces(labels, 5, 20, rng())
    assert ((found[:, 1] - found[:, 0] >= 5) & (found[:, 1] - found[:, 0] <= 20)).all()
    for first, end in found:
        assert len(set(labels[first:end])) == 1
        assert labels[first] in (0, 1)
    covered = np.concatenate([np.arange(first, end) for first, end in found])
    assert len(covered) == len(set(covered.tolist())) >= 140
    lengths = np.diff(alignment.random_pieces(np.zeros(20_000), 5, 20, rng()), axis=1)
    assert np.bincount(lengths[:, 0])[5:].min() > 0.5 * len(lengths) / 16
