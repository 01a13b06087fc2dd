"""What a score is called, by what its intervals allow."""

from dataclasses import replace

import pytest

from tests.report.examples import (
    BELOW,
    COLLAPSED,
    FACES,
    LEARNED,
    MAJORITY,
    ONE_CLASS,
    PERFECT,
    RARE,
    TINY,
    UNEVEN,
    WORSE,
    scored,
)
from vitreous.evaluation.verdict import percent, standing, verdict, verdict_in_full, weakest_class


@pytest.mark.parametrize(
    ("evaluation", "where", "sentence"),
    [
        (
            LEARNED,
            "learned",
            "Right for 1374 of 1585 pictures: 86.7 % (84.9 to 88.3 %). "
            "Always answering 'happy' would give 55.5 %.",
        ),
        (
            TINY,
            "guessing",
            "26 of 60 right, 43 % (32 to 56 %): not distinguishable from guessing one of three.",
        ),
        (
            MAJORITY,
            "guessing",
            "269 of 480 right, 56 % (52 to 60 %): it has not learned more than always answering "
            "'happy', which would give 58 %.",
        ),
        (
            UNEVEN,
            "uneven",
            "250 of 480 right, 52 % (48 to 57 %): worse than always answering 'happy' (58 %). "
            "Yet it tells the classes apart: balanced accuracy 55 % (50 to 60 %), "
            "by guessing 33 %.",
        ),
        (
            WORSE,
            "worse",
            "6 of 60 right, 10 % (5 to 20 %): worse than guessing one of three, which would give "
            "33 %. Do the classes mean the same as in training?",
        ),
        (
            BELOW,
            "guessing",
            "74 of 330 right, 22 % (18 to 27 %): fewer than guessing one of three would give "
            "(33 %). By class it is not distinguishable from that: balanced accuracy "
            "38 % (27 to 50 %).",
        ),
        (
            RARE,
            "uneven",
            "70 of 330 right, 21 % (17 to 26 %): worse than guessing (33 %). Yet it tells the "
            "classes apart: balanced accuracy 71 % (61 to 77 %), by guessing 33 %.",
        ),
        (
            COLLAPSED,
            "collapsed",
            "It answers 'happy' for every picture: collapsed to one class. "
            "That is right for 880 of 1585, 55.5 %.",
        ),
        (
            ONE_CLASS,
            "one class",
            "Every picture here is 'happy': 35 of 40 right, 88 % (74 to 95 %). "
            "One class alone can't show whether it tells classes apart.",
        ),
        (
            PERFECT,
            "learned",
            "Right for 50 of 50 pictures: 100 % (93 to 100 %). Guessing would give 50 %.",
        ),
    ],
)
def test_the_verdict_says_what_the_intervals_allow(evaluation, where, sentence):
    assert standing(evaluation) == where
    assert verdict(evaluation) == sentence


def test_guessing_names_the_most_frequent_class_where_that_is_better():
    evaluation = scored([[3, 20, 2], [18, 20, 12], [2, 20, 3]], FACES, majority=1)
    assert verdict(evaluation).endswith(
        "not distinguishable from guessing one of three; always answering 'happy' would give 50 %."
    )


def test_classes_of_one_size_never_get_two_verdicts_at_once():
    """Here the interval of balanced accuracy, alone, would leave guessing out."""
    near = scored([[0, 20, 0], [0, 5, 15], [0, 0, 20]], FACES)
    assert near.accuracy.low < 1 / 3 < near.balanced_accuracy.low
    assert standing(near) == "guessing"


def test_one_answer_for_a_few_pictures_is_no_collapse():
    few, ten = (scored([[2, 0], [1 + more, 0]], ("a", "b")) for more in (0, 7))
    assert standing(few) == "guessing"
    assert verdict(few) == (
        "2 of 3 right, 67 % (21 to 94 %): not distinguishable from guessing one of two; "
        "always answering 'a' would give 67 %."
    )
    assert standing(ten) == "collapsed"


def test_the_weakest_class_is_named_with_what_it_is_taken_for():
    assert weakest_class(LEARNED) == (
        "Weakest: 'sad', found in 74 % of its pictures (70 to 78 %), most often taken for 'angry'."
    )
    assert weakest_class(PERFECT) == ""
    assert weakest_class(COLLAPSED) == ""


def test_a_percentage_short_of_all_is_never_rounded_up_to_all():
    assert [percent(0.9999), percent(0.99996, 1), percent(1.0, 1)] == ["99 %", "99.9 %", "100.0 %"]


def test_the_verdict_in_full_says_where_it_flatters():
    assert verdict_in_full(LEARNED) == verdict(LEARNED)
    assert verdict_in_full(replace(LEARNED, chose_weights=True)) == (
        f"{verdict(LEARNED)} That is a little optimistic: these pictures also chose the weights."
    )
