"""The ladder, top to bottom: from an answer that looks at no picture to all weights tuned.

Each rung begins with the best one below it (a new head is fitted before anything else learns, as
in Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution", section 4) and is scored on the same validation pictures. What is kept is the
simplest within one standard error of the best. A rung is a run of its own inside the run's folder,
so a ladder that was stopped goes on where it was.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch

from vitreous.core.files import (
    copy_file,
    read_tensors,
    write_json,
    write_tensors,
)
from vitreous.core.run import RunFolder
from vitreous.data.dataset import Dataset
from vitreous.errors import TrainingError
from vitreous.evaluation.choose import simplest_within_one_error
from vitreous.evaluation.metrics import Evaluation, evaluate_probabilities
from vitreous.evaluation.results import Ladder, Row
from vitreous.ladder.features import Features, drawn_model, frozen_features
from vitreous.ladder.probe import linear_probe, nearest_neighbors
from vitreous.model.vit import ViT
from vitreous.training.classifier import Classifier, load_classifier, save_classifier
from vitreous.training.config import RunConfig
from vitreous.training.device import choose_device, in_same_order
from vitreous.training.encoder import Encoder, load_encoder
from vitreous.training.guard import TooLittleMemory
from vitreous.training.learner import ClassLearner
from vitreous.training.trainer import Clock, Sitting, ValidScore
from vitreous.training.trainer import train as run_training

#: Of a budget: for looking at the training pictures once, with rungs above the probe and without.
_FEATURES_SHARE, _FEATURES_SHARE_ALONE = 0.2, 0.5
#: And for fitting a head, where there are rungs above it; usually that takes far less.
_FIT_SHARE = 0.1
#: A rung with fewer seconds for its steps is left out: its speed couldn't even be measured.
_LEAST_S = 9.0
_TRAINED = ("lora", "full")


def climb(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    encoder: Encoder | None,
    evaluate: Callable[[ViT], tuple[Evaluation, np.ndarray]],
    validate: Callable[[ViT], ValidScore],
    choose: Callable[[RunFolder], None],
    sitting: Sitting,
) -> None:
    """Climb what is left of the ladder, and put the weights of the rung that is kept into the run.

    Args:
        run: the whole run.
        config: of it, with a `ladder`.
        dataset: pictures for training and validation.
        encoder: the pretrained weights; not needed once there is a probe.
        evaluate: scores a model on the validation pictures, and gives its probabilities.
        validate: the same in short, as the trainer wants it.
        choose: leaves a trained rung with the weights to use.
        sitting: this process.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, with the state saved.
        TrainingError: where a loss stays no number, or memory too small, on the one rung asked for.
    """
    assert config.ladder is not None
    climber = _Climber(run, config, dataset, evaluate, validate, choose, sitting)
    if not climber.ladder.has("probe"):
        assert encoder is not None
        climber.look(encoder)
    for name in _TRAINED:
        if name in config.ladder.rungs and not climber.ladder.is_done_with(name):
            climber.train(name)
    climber.keep()


class _Climber:
    """What the rungs of one ladder share."""

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        dataset: Dataset,
        evaluate: Callable[[ViT], tuple[Evaluation, np.ndarray]],
        validate: Callable[[ViT], ValidScore],
        choose: Callable[[RunFolder], None],
        sitting: Sitting,
    ) -> None:
        assert config.ladder is not None
        self.run, self.config, self.settings = run, config, config.ladder
        self.classes = dataset.classes
        self.train_set, self.valid_set = dataset.sets["train"], dataset.sets["valid"]
        self.evaluate, self.validate, self.choose = evaluate, validate, choose
        self.sitting, self.console, self.clock = sitting, sitting.console, sitting.clock
        self.ladder = Ladder.read(run)
        #: What a look at the validation pictures takes, as soon as this sitting has had one.
        self.validation_s = 0.0

    def look(self, encoder: Encoder) -> None:
        """What can be told without changing the model: the yardsticks, and a head alone."""
        self.ladder = Ladder()  # a sitting that ended among these begins them again
        started = time.monotonic()
        shares = np.bincount(self.train_set.labels, minlength=len(self.classes))
        always = np.tile(shares / shares.sum(), (len(self.valid_set), 1))
        majority = self.classes[self.train_set.majority_class]
        self._note("baseline", f"always '{majority}'", self._evaluation(always), started)
        started = time.monotonic()
        budget_s = self.config.train.budget_s
        share = _FEATURES_SHARE_ALONE if self._is_probe_alone else _FEATURES_SHARE
        with in_same_order(self.config.train):
            features = frozen_features(
                self.run.rung("probe").features,
                self.config,
                encoder,
                self.train_set,
                self.valid_set,
                self.console,
                None if budget_s is None else share * budget_s,
            )
        looked_at = len(features.valid) + len(features.train)
        self.validation_s = (time.monotonic() - started) * len(features.valid) / looked_at
        count = min(self.settings.neighbors, len(features.train))
        answers = nearest_neighbors(features, len(self.classes), count)
        what = f"{count} nearest pictures, features as they are"
        self._note("neighbors", what, self._evaluation(answers), started)
        started = time.monotonic()
        self._fit_head(encoder, features)
        self._score("probe", "probe: a new head", started)

    def _fit_head(self, encoder: Encoder, features: Features) -> None:
        balanced = self.config.train.class_weights == "balanced"
        weight, bias = linear_probe(features, len(self.classes), balanced, self._seconds_to_fit())
        model = encoder.load_into(drawn_model(self.config.model))
        model.load_state_dict({**model.state_dict(), "head.weight": weight, "head.bias": bias})
        majority = self.train_set.majority_class
        classifier = Classifier(model, self.config.preprocess, self.classes, majority)
        save_classifier(self.run.rung("probe").best, classifier)

    def _seconds_to_fit(self) -> float | None:
        """A share of the budget, or all that is left where nothing is trained behind it."""
        budget_s = self.config.train.budget_s
        if budget_s is None:
            return None
        left = self.clock.left_s(budget_s, self.validation_s)
        return left if self._is_probe_alone else min(left, _FIT_SHARE * budget_s)

    @property
    def _is_probe_alone(self) -> bool:
        return self.settings.rungs == ("probe",)

    def train(self, name: str) -> None:
        """Climb a rung by training, from the best one below."""
        started = time.monotonic()
        config, clock = self._configured(name)
        budget_s, has_begun = config.train.budget_s, (self.run.rungs / name).exists()
        if budget_s is not None and not has_begun:
            left = clock.left_s(budget_s, self.validation_s)
            if left < _LEAST_S:
                self._leave_out(name, f"{max(left, 0):.0f} s to learn in are too few for '{name}'")
                return
        rung = self.run.rung(name)
        encoder = load_encoder(self.run.rung(self._best_below()).best, with_head=True)
        try:
            learner = run_training(
                config,
                self.train_set,
                partial(ClassLearner, classes=self.classes, encoder=encoder),
                self.validate,
                rung,
                replace(self.sitting, clock=clock),
            )
        except TooLittleMemory:
            raise  # the other processes may be in the midst of a step
        except TrainingError as error:
            if self.settings.rungs == (name,):
                raise
            self._leave_out(name, f"the ladder goes on without '{name}': {error}")
            return
        self.choose(rung)
        # Its earlier sittings count too.
        started = min(started, time.monotonic() - learner.state.elapsed_s)
        rank = f" of rank {self.settings.lora_rank}"
        words = {"lora": f"lora: updates{rank} and the head", "full": "full: all weights"}
        self._score(name, words[name], started)

    def _leave_out(self, name: str, why: str) -> None:
        """Climb a rung neither now nor when the run is resumed."""
        self.console.warn(why)
        self.ladder = replace(self.ladder, skipped=(*self.ladder.skipped, name))
        self._write()

    def _configured(self, name: str) -> tuple[RunConfig, Clock]:
        """Settings of a rung that is trained, and its share of the time."""
        train, settings = self.config.train, self.settings
        is_last = name == settings.rungs[-1]
        share = 1.0 if is_last else settings.lora_share
        clock = replace(self.clock, started=time.monotonic())
        if train.budget_s is None:
            train = replace(train, epochs=share * train.epochs)
        else:
            spent = max(time.monotonic() - self.clock.started, self.ladder.seconds)
            left = share * (train.budget_s - spent)
            if not is_last:  # what comes behind training, the last rung leaves time for
                looks = 2 if self.config.preprocess.mirror else 1
                clock = Clock(clock.started, closing_validations=1.0 + 2 * looks, closing_s=0.0)
            train = replace(train, budget_s=max(left, 1e-3))
        if name == "lora":
            train = settings.of_lora(train)
        return replace(self.config, train=train, ladder=None), clock

    def _best_below(self) -> str:
        """The rung with the highest balanced accuracy so far, ties by loss."""
        rungs = [row for row in self.ladder.rows if row.name in ("probe", *_TRAINED)]
        return max(rungs, key=lambda row: (row.balanced_accuracy.value, -row.loss)).name

    def _score(self, name: str, what: str, started: float) -> None:
        """Score a rung's weights and write down what they answer."""
        rung = self.run.rung(name)
        model = load_classifier(rung.best).model.to(choose_device(self.config.train.device))
        began = time.monotonic()
        evaluation, probabilities = self.evaluate(model)
        self.validation_s = time.monotonic() - began
        write_tensors(
            rung.answers, {"answers": torch.from_numpy(probabilities.argmax(1).astype("int32"))}, {}
        )
        self._note(name, what, evaluation, started)

    def _evaluation(self, probabilities: np.ndarray) -> Evaluation:
        """The score of answers that are no model's."""
        labels, majority = self.valid_set.labels.numpy(), self.train_set.majority_class
        return evaluate_probabilities(probabilities, labels, self.classes, majority)

    def _note(self, name: str, what: str, score: Evaluation, started: float) -> None:
        """Add a row, on disk at once, and say it."""
        seconds = round(time.monotonic() - started, 2)
        row = Row(name, what, score.accuracy, score.balanced_accuracy, score.loss, seconds)
        self.ladder = replace(self.ladder, rows=(*self.ladder.rows, row))
        self._write()
        self.console.info(f"ladder: {Ladder((row,)).lines()[0]}")

    def keep(self) -> None:
        """Choose a rung, and make its weights and its log the run's own."""
        labels = self.valid_set.labels.numpy()
        # The head alone is there always; the others may have been left out.
        rungs = [name for name in self.settings.rungs if self.ladder.has(name)] or ["probe"]
        right = [
            read_tensors(self.run.rung(name).answers)[0]["answers"].numpy() == labels
            for name in rungs
        ]
        kept = rungs[simplest_within_one_error(right, labels)]
        rung = self.run.rung(kept)
        for name in ("best", "last", "kept", "metrics"):
            source, place = getattr(rung, name), getattr(self.run, name)
            if source.exists():
                copy_file(source, place)
            else:  # a head alone has no log and no last step
                place.unlink(missing_ok=True)
        self.ladder = replace(self.ladder, kept=kept)
        self._write()
        for line in self.ladder.lines():
            self.console.info(line)
        if len(rungs) > 1:
            self.console.info(
                f"kept: {kept}, the simplest within one standard error of the best on "
                f"{len(labels)} validation pictures"
            )

    def _write(self) -> None:
        write_json(self.run.ladder, asdict(self.ladder))
