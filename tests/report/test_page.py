import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.pages.reading import CHROMIUM, Page, chromium, opened_width
from tests.report.examples import LEARNED, ONE_CLASS, PERFECT, many, scored
from vitreous.diagnosis.causes import Cause, Diagnosis
from vitreous.evaluation.intervals import proportion_interval
from vitreous.evaluation.metrics import Evaluation, Untempered
from vitreous.evaluation.reliability import measure_reliability
from vitreous.evaluation.results import Fold, FoldScores, Ladder, Pooled, Row
from vitreous.evaluation.verdict import reliability_in_words, verdict
from vitreous.pages.pictures import picture_uri
from vitreous.report.figures import confusion_uri, learning_curves
from vitreous.report.page import Report, frequent_confusions, render_report
from vitreous.report.parts import (
    Doubt,
    DoubtfulLabels,
    Mistake,
)

PROBE = Row(
    "probe", "probe: a new head", proportion_interval(6, 9), proportion_interval(5, 9), 0.5, 2.0
)
HOSTILE = "<script>alert('x')</script>&\"quoted\""


_POOLED = Pooled(0.8, 0.02, proportion_interval(160, 200))
FOLDS = FoldScores(
    tuple(Fold(f"{number}", 40, 0.8, 0.7 + number / 100, 0.5, 9.0) for number in range(1, 6)),
    200,
    _POOLED,
    _POOLED,
)


DOUBTS = DoubtfulLabels(
    verdict="2 of 200 labels are worth a look.",
    first=[
        Doubt(picture_uri(np.zeros((24, 24, 3), np.uint8), 128), f"sad/{at}.jpg", "sad", "happy",
              0.97)
        for at in range(2)
    ],
    command="vitreous audit runs/faces",
)  # fmt: skip


def history() -> list[dict]:
    lines = []
    for step in range(10, 410, 10):
        where = {"step": step, "epoch": step / 40, "seconds": step / 10}
        loss = 0.5 + 5 / (step + 5)
        lines.append({"kind": "train", **where, "loss": loss, "learning_rate": 1e-3 / step})
        if step % 40 == 0:
            share = 0.9 - 10 / (step + 10)
            score = {"accuracy": share, "balanced_accuracy": share - 0.1, "loss": loss - 0.1}
            lines.append({"kind": "valid", **where, **score, "best": step <= 320})
    return lines


def pictures(count: int, side: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def a_report(evaluation: Evaluation = LEARNED, side: int = 24, shown: int = 3) -> Report:
    first, second = evaluation.classes[:2]
    return Report(
        name="faces",
        evaluation=evaluation,
        evaluated_on="test",
        ladder=Ladder((PROBE,), kept="probe"),
        history=history(),
        mistakes=[
            Mistake(picture, f"{first}/IMG_{at}.jpg", first, second, 0.99, picture[::-1])
            for at, picture in enumerate(pictures(shown, side))
        ],
        augmented=pictures(shown, side),
        warnings=["train/happy/a.jpg: damaged: the file ends too soon"],
        facts={"Model": "ViT", "Device": "CPU"},
        choice=[("model.depth", "6", "a hundred pictures")],
        config='[data]\nsource = "faces"\n',
        versions={"vitreous": "0.1.0"},
        reproduce="vitreous train faces --config config.toml --out NEW_FOLDER",
    )


def test_the_page_is_whole_and_loads_nothing():
    html = render_report(a_report())
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert page.tags.count("h1") == 1
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags
    assert all(link.startswith(("data:image/", "#")) for link in page.loads)
    assert {link[1:] for link in page.loads if link.startswith("#")} <= set(page.ids)
    assert "http://" not in html
    assert "https://" not in html
    assert all(isinstance(alt, str) for alt in page.alts)
    assert verdict(LEARNED).replace(" %", "\u00a0%") in page.text
    assert "Lowest validation loss: 0.412, at epoch 10." in page.text
    assert "epoch 8: 87.0\u00a0% of the validation pictures right" in page.text


def test_probabilities_are_held_against_what_is_right():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 400)
    chances = np.stack([sure, 1 - sure], axis=1)
    reliability = measure_reliability(chances, np.where(rng.random(400) < sure - 0.1, 0, 1))
    before = Untempered(1.5, 0.61, proportion_interval(60, 400))
    evaluation = replace(PERFECT, reliability=reliability, untempered=before)
    page = Page(render_report(a_report(evaluation)))
    assert "Can its probabilities be trusted?" in page.text
    assert len(page.ids) == len(set(page.ids))
    assert reliability_in_words(evaluation).replace(" %", "\u00a0%") in page.text
    assert "Without the temperature, 1.5, it would be" in page.text
    chosen = replace(a_report(replace(evaluation, chose_weights=True)), evaluated_on="valid")
    on_valid = Page(render_report(chosen)).text
    assert "Without the temperature, 1.5, fitted on these very pictures, it would be" in on_valid
    assert "the log loss 0.610 instead of 0.500" in page.text
    assert "Each dot stands for 40 answers" in page.text
    bare = Page(render_report(a_report(PERFECT))).text
    assert "Can its probabilities be trusted?" not in bare
    assert reliability_in_words(PERFECT) == ""


def test_folds_stand_with_their_mean_and_range():
    page = Page(render_report(replace(a_report(), folds=FOLDS)))
    assert "folds" in page.ids
    text = " ".join(page.text.split())
    assert "80.0 % standard deviation 2.0 %; over all 200 pictures 95 % interval 73.9 to" in text
    assert "75.0 %" in text
    assert "folds" not in Page(render_report(a_report())).ids


def test_doubtful_labels_stand_with_what_they_look_like():
    page = Page(render_report(replace(a_report(), folds=FOLDS, labels=DOUBTS)))
    text = " ".join(page.text.split())
    assert "2 of 200 labels are worth a look. By the folds" in text
    assert text.count("labelled sad looks like happy 97 %") == 2
    assert "vitreous audit runs/faces" in text
    assert page.alts.count("Picture labelled sad") == 2
    none = replace(DOUBTS, verdict="None of 200 labels stands out.", first=[])
    text = Page(render_report(replace(a_report(), labels=none))).text
    assert "None of 200 labels stands out." in text
    assert "vitreous audit" not in text
    assert "labels" not in Page(render_report(a_report())).ids


def test_a_yardstick_that_hardly_looks_stands_beside_the_score():
    baselines = {**LEARNED.baselines, "thumbnails": {"accuracy": 0.6, "balanced_accuracy": 0.45}}
    evaluation = replace(LEARNED, baselines=baselines)
    assert verdict(evaluation).endswith("55.5 %, a linear classifier of 8x8 pixels 60.0 %.")
    page = Page(render_report(a_report(evaluation)))
    assert page.text.count("a linear classifier of 8x8 pixels") == 3  # verdict and both scores
    baselines["thumbnails"]["accuracy"] = 0.86
    assert verdict(replace(evaluation, baselines=baselines)).endswith(
        "but a linear classifier of 8x8 pixels 86.0 %: it is not shown to see more than colours "
        "and rough shapes."
    )


def test_what_is_wrong_with_the_pictures_has_a_section_of_its_own():
    assert "The pictures it was given" not in render_report(a_report())
    page = Page(render_report(replace(a_report(), findings="<p>2 errors in 9 pictures.</p>")))
    assert "The pictures it was given 2 errors in 9 pictures." in " ".join(page.text.split())


def test_why_it_is_stuck_is_shown_where_there_is_something_to_say():
    silent = replace(a_report(), diagnosis=Diagnosis("Balanced accuracy 90 %."))
    assert "stuck" not in Page(render_report(silent)).ids
    cause = Cause("collapse", "it answers 'a' for all", "Train anew.", {}, "vitreous train a b")
    other = Cause("leak", "3 of 9 pictures", "Take them out.")
    html = render_report(replace(silent, diagnosis=Diagnosis("A standing.", (cause, other))))
    page = Page(html)
    assert "stuck" in page.ids
    for text in (cause.title, cause.evidence, cause.advice, cause.command, other.title):
        assert text in page.text
    assert page.text.index(cause.title) < page.text.index(other.title)


def test_a_score_on_pictures_that_were_learned_from_is_not_called_held_back():
    leak, collapse = Cause("leak", "3 of 9 pictures", "Take them out."), Cause("collapse", "", "")
    plain = Page(render_report(a_report())).text
    assert "Measured on the test pictures, held back from training." in plain
    assert "no honest score" not in plain
    for causes, title in (
        ((leak,), "What is wrong with the score"),
        ((leak, collapse), "Why it is stuck"),
    ):
        page = Page(render_report(replace(a_report(), diagnosis=Diagnosis("Seen.", causes))))
        text = " ".join(page.text.split())
        assert "Measured on the test pictures. Some of these pictures were learned from:" in text
        assert "this is no honest score, see below" in text
        assert "held back from training" not in text
        assert title in text
        assert {link[1:] for link in page.loads if link.startswith("#")} <= set(page.ids)
    other = Page(render_report(replace(a_report(), diagnosis=Diagnosis("Seen.", (collapse,)))))
    assert "held back from training" in other.text
    assert "Why it is stuck" in other.text


def test_what_it_looks_for_stands_at_the_end_and_stays_small():
    rng = np.random.default_rng(0)
    patches = rng.random((1369, 32), dtype=np.float32)  # of a picture of 518 px
    looking = replace(
        a_report(),
        filters=rng.random((28, 16, 16, 3), dtype=np.float32),
        positions=(patches @ patches.T / 32).reshape(37, 37, 37, 37),
    )
    html, plain = render_report(looking), render_report(a_report())
    page = Page(html)
    assert page.ids[-2:] == ["looks", "again"]
    assert page.alts[-2:] == [
        "The 28 strongest principal components of its patch filters",
        "How alike each place's position is to those of all places",
    ]
    assert all(link.startswith("data:image/") for link in page.loads[-2:])
    assert len(html) - len(plain) < 300_000  # of noise, which is the hardest to pack
    assert "looks" not in Page(plain).ids
    without = Page(render_report(replace(looking, positions=None)))
    assert without.alts[-1] == page.alts[-2]


@pytest.mark.parametrize("grid", [(1, 1), (4, 1), (2, 3)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_positions_that_are_all_alike_are_drawn_too(grid, value):
    alike = np.full((*grid, *grid), value, np.float32)
    page = Page(render_report(replace(a_report(), positions=alike)))
    assert page.alts[-1].startswith("How alike")


def test_hostile_names_stay_text():
    plain = a_report(scored([[8, 2], [1, 9]], (HOSTILE, "b")))
    report = replace(
        plain,
        name=HOSTILE,
        evaluated_on=HOSTILE,
        mistakes=[replace(plain.mistakes[0], file=f"{HOSTILE}\udcff.jpg")],
        warnings=[HOSTILE] * 9,
        facts={HOSTILE: HOSTILE},
        config=HOSTILE,
        versions={HOSTILE: HOSTILE},
        reproduce=HOSTILE,
        diagnosis=Diagnosis(HOSTILE, (Cause("leak", HOSTILE, HOSTILE, {}, HOSTILE),)),
    )
    html = render_report(report)
    assert "<script" not in html
    assert "alert" not in "".join(Page(html).ids)
    assert Page(html).text.count(HOSTILE) > 15
    assert f"{HOSTILE}?.jpg" in Page(html.encode("utf-8").decode("utf-8")).text


def test_the_same_report_gives_the_same_bytes():
    assert render_report(a_report()) == render_report(a_report())


def test_what_is_missing_leaves_its_section_out():
    assert "ladder" in Page(render_report(a_report())).ids
    bare = replace(a_report(), history=[], mistakes=[], augmented=[], warnings=[], facts={})
    ids = Page(render_report(replace(bare, ladder=Ladder()))).ids
    assert not {"curves", "mistakes", "augmented", "warnings", "facts", "ladder"} & set(ids)
    flawless = Page(render_report(replace(bare, evaluation=PERFECT)))
    assert "No mistakes on these pictures." in flawless.text


def test_a_score_on_the_pictures_that_chose_the_weights_is_called_optimistic():
    plain = replace(a_report(), history=[])
    chosen = replace(a_report(replace(LEARNED, chose_weights=True)), evaluated_on="valid")
    optimistic = Page(render_report(chosen)).text
    assert "optimistic" not in render_report(plain)
    assert "A little optimistic:" in optimistic
    assert "needs a test split" in optimistic


@pytest.mark.parametrize("kind", ["train", "valid"])
def test_curves_of_one_kind_alone_and_of_a_single_line_with_no_number(kind):
    lines = [line for line in history() if line["kind"] == kind]
    assert "Loss" in [curve.title for curve in learning_curves(lines, 1 / 3)]
    assert learning_curves([lines[0] | {"loss": float("nan")}], 1 / 3)


def test_the_weights_kept_are_marked_where_they_are():
    """Of the best validation, or of the last: that one is at epoch 10 here, the best at 8."""
    plain, last = (render_report(replace(a_report(), keeps_last=kept)) for kept in (False, True))
    words = "The weights kept are those of epoch"
    assert f"{words} 8: " in " ".join(Page(plain).text.split())
    text = " ".join(Page(last).text.split())
    assert f"{words} 10: " in text
    assert (
        "those of epoch 8 validated best, but are not better by more than one standard error"
        in text
    )


def test_many_classes_become_a_heat_map_with_the_most_frequent_confusions():
    evaluation = many(200)
    html = render_report(a_report(evaluation))
    assert html.count(confusion_uri(evaluation.confusion)) == 1
    pairs = frequent_confusions(evaluation)
    counts = [pair.pictures for pair in pairs]
    assert len(pairs) == 10
    assert counts == sorted(counts, reverse=True)
    off_diagonal = np.array(evaluation.confusion) * (1 - np.eye(200))
    assert counts[0] == off_diagonal.max()
    assert "Most frequent confusions" in Page(html).text
    assert "Most frequent confusions" not in render_report(a_report(many(20)))


def test_an_absent_class_says_so():
    page = Page(render_report(a_report(ONE_CLASS)))
    assert "none of these pictures has it" in page.text
    assert "nan" not in page.text


def test_a_mistake_stands_beside_what_its_answer_comes_from():
    report = replace(a_report(), reasons="In colour: <where> from.")
    page = Page(render_report(report))
    assert page.alts.count("Where the answer comes from") == 3
    assert "In colour: <where> from." in page.text
    unexplained = [replace(mistake, overlay=None) for mistake in report.mistakes]
    plain = Page(render_report(replace(report, mistakes=unexplained, reasons="")))
    assert "Where the answer comes from" not in plain.alts
    assert len(plain.alts) == len(page.alts) - 3


def test_pictures_are_made_small_and_pixel_art_stays_sharp():
    large, small = picture_uri(pictures(1, 600)[0], 224), picture_uri(pictures(1, 28)[0], 224)
    assert large.uri.startswith("data:image/webp;base64,")
    assert small.uri.startswith("data:image/png;base64,")
    assert (large.pixelated, small.pixelated) == (False, True)
    # Noise is the hardest picture to pack.
    assert len(render_report(a_report(side=224, shown=24))) < 2_000_000


def test_the_import_leaves_pyplot_and_torch_alone():
    code = (
        "import sys, vitreous.report.page; print({'torch', 'matplotlib.pyplot'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")
def test_on_a_phone_the_page_never_scrolls_sideways(tmp_path):
    long_name = scored([[30, 3], [2, 40]], ("never_ending_name_" * 9, "b"))
    held_out = replace(a_report(), folds=FOLDS, labels=DOUBTS)
    reports = {
        "faces": a_report(),
        "folds": held_out,
        "birds": a_report(many(30)),
        "long": a_report(long_name),
        "looks": replace(
            a_report(),
            filters=np.zeros((5, 3, 3, 3), np.float32),
            positions=np.ones((14, 14, 14, 14), np.float32),
        ),
    }
    with chromium() as browser:
        for name, report in reports.items():
            file = tmp_path / f"{name}.html"
            file.write_text(render_report(report), encoding="utf-8")
            assert opened_width(browser, file, 360) == 360, name
