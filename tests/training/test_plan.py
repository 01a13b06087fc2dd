import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitreous.core.files import read_record, write_json
from vitreous.errors import RunError
from vitreous.training.logbook import read_logbook
from vitreous.training.plan import (
    Best,
    Plan,
    Return,
    learning_rate_factor,
    plan_budget,
    plan_epochs,
)


def test_epochs_become_steps():
    plan = plan_epochs(10, 101.3)
    assert plan.total_steps == 1013
    assert plan.evaluate_every == 102
    assert plan_epochs(0.001, 1).total_steps == 1


def test_many_tiny_epochs_are_not_all_validated():
    plan = plan_epochs(3000, 1)
    assert plan.evaluate_every == 30


@given(
    seconds=st.floats(1, 1e5),
    step_s=st.floats(1e-3, 5),
    evaluation_s=st.floats(1e-3, 60),
    steps_per_epoch=st.floats(0.2, 1e4),
)
def test_a_budget_is_filled_and_not_exceeded(seconds, step_s, evaluation_s, steps_per_epoch):
    plan = plan_budget(seconds, step_s, evaluation_s, steps_per_epoch, max_epochs=300)
    steps = plan.total_steps
    needed = steps * step_s + steps // plan.evaluate_every * evaluation_s
    assert needed <= seconds * 1.0001 or steps == 1
    longest = max(1, round(300 * steps_per_epoch))
    with_one_more = (steps + 1) * (step_s + evaluation_s / plan.evaluate_every)
    assert steps == longest or with_one_more >= seconds * 0.9999
    assert evaluation_s / plan.evaluate_every <= step_s / 10.99


@given(st.data())
def test_progress_rises_from_0_to_1_through_every_change_of_plan(data):
    plan = plan_epochs(data.draw(st.integers(10, 200)), 1)
    for _ in range(data.draw(st.integers(0, 4))):
        step = data.draw(st.integers(plan.stretches[-1].first_step, plan.total_steps - 1))
        plan = plan.replanned(step, data.draw(st.integers(step + 1, 400)))
    progress = [plan.progress(step) for step in range(plan.total_steps + 1)]
    assert progress[0] == 0.0
    assert progress[-1] == 1.0
    assert all(a <= b for a, b in itertools.pairwise(progress))
    assert Plan.from_json(plan.to_json() | {"stretches": plan.to_json()["stretches"]}) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "it holds no object"),
        ('{"stretches": [], "evaluate_every": 1, "pace": 3}', "unknown setting 'pace'"),
        ('{"stretches": [], "evaluate_every": 1}', "a plan has one stretch of steps or more"),
        ('{"stretches": [{"first_step": 0}], "evaluate_every": 1}', "is missing"),
        ('{"stretches": [], "evaluate_every": "often"}', "not a whole number"),
        ("{", "can't read"),
    ],
)
def test_a_damaged_plan_is_named(tmp_path, text, said):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(RunError) as caught:
        read_record(path, Plan)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_plan_that_went_back_is_read_as_it_was_written(tmp_path):
    plan = plan_epochs(100, 1).returned(Return(9, 4, Best(4, 0.5, 0.7)))
    plan = plan.returned(Return(8, 2, None))
    write_json(tmp_path / "plan.json", plan.to_json())
    assert read_record(tmp_path / "plan.json", Plan) == plan


def test_a_damaged_log_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train"}\n{"ki\n{"half')
    with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
        read_logbook(path)
    for damage in (b"\xff\xfe\n", b"3\n"):
        path.write_bytes(damage)
        with pytest.raises(RunError, match=r"metrics\.jsonl is damaged"):
            read_logbook(path)
    path.write_text('{"kind": "train"}\n{"half')
    assert read_logbook(path) == [{"kind": "train"}]


def test_a_change_of_plan_leaves_the_past_alone():
    plan = plan_epochs(100, 1)
    changed = plan.replanned(60, 80)
    assert [changed.progress(s) for s in range(60)] == [plan.progress(s) for s in range(60)]
    assert changed.progress(70) == pytest.approx(0.8)
    assert [changed.total_at(step) for step in (0, 59, 60, 79)] == [100, 100, 80, 80]


def test_the_rate_warms_up_and_follows_a_cosine():
    assert learning_rate_factor(0.0, 0.1, 0.01) == 0.0
    assert learning_rate_factor(0.05, 0.1, 0.01) == pytest.approx(0.5)
    assert learning_rate_factor(0.1, 0.1, 0.01) == pytest.approx(1.0)
    assert learning_rate_factor(0.55, 0.1, 0.0) == pytest.approx(0.5)
    assert learning_rate_factor(1.0, 0.1, 0.01) == pytest.approx(0.01)
    assert learning_rate_factor(0.0, 0.0, 0.0) == 1.0
    quarter = 0.1 + 0.9 / 4
    assert learning_rate_factor(quarter, 0.1, 0) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
