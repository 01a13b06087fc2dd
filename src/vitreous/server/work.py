"""A bounded line of pictures, and the threads that read and classify them.

The event loop hands pictures over and is told of answers; it never decodes or computes. On a CPU a
worker reads a picture and classifies it, alone, and batches would only make others wait: two cores
answer as many pictures one by one. On a GPU workers only read, and one more thread classifies what
has been read, many at once: it waits for others no longer than a few milliseconds. Explanations
take seconds, so they have a thread and a short line of their own, and no picture waits for them.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

import numpy as np
import torch
from fastapi import HTTPException

from vitreous.core.threads import set_own_threads, torch_threads
from vitreous.errors import UnreadablePicture
from vitreous.server.bodies import Picture
from vitreous.server.metrics import Metrics
from vitreous.server.model import Served
from vitreous.server.settings import Settings
from vitreous.serving.guard import Guard
from vitreous.serving.predictor import Answer

#: Explanations at a time: one that is made and two that wait.
_EXPLANATIONS = 3


@dataclass(frozen=True, eq=False)
class _Job:
    """One picture in the line.

    Args:
        picture: what to classify.
        served: the model that was there when it came.
        guard: makes its answer cautious.
        future: of its answer; belongs to the event loop.
        explain: what to say of it instead of its class.
        came: `time.perf_counter` then.
    """

    picture: Picture
    served: Served
    guard: Guard | None
    future: "asyncio.Future[Any]"
    explain: Callable[[Served, Picture], Any] | None = None
    came: float = field(default_factory=time.perf_counter)


class Work:
    """The line and its threads; its methods are called in the event loop.

    Args:
        served: says how many threads pay.
        settings: how many may wait.
        metrics: told how long things take.
    """

    def __init__(self, served: Served, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._batch = settings.batch or served.batch
        workers = settings.workers or served.workers
        waiting = settings.queue or (2 * self._batch if self._batch > 1 else workers)
        self._places = workers + (self._batch if self._batch > 1 else 0) + waiting
        self._pending = self._explaining = 0
        self._line: SimpleQueue[_Job | None] = SimpleQueue()
        self._read: SimpleQueue[tuple[_Job, np.ndarray] | None] = SimpleQueue()
        self._why: SimpleQueue[_Job | None] = SimpleQueue()
        self._stages = {
            stage: metrics.seconds.labels(stage) for stage in ("wait", "read", "classify")
        }
        reader = self._answer if self._batch == 1 else self._pass_on
        self._readers = [self._thread(self._line, reader, at) for at in range(workers)]
        self._others = [self._thread(self._why, self._explain, 0)]
        self._begun = threading.Barrier(len(self._readers) + len(self._others) + 1)
        if self._batch > 1:
            self._others.append(threading.Thread(target=self._classify_batches, daemon=True))

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the threads begin; answers are given in the loop."""
        self._loop = loop
        with torch_threads(torch.get_num_threads()):  # which those of new threads change
            for thread in (*self._readers, *self._others):
                thread.start()
            self._begun.wait()

    def stop(self) -> None:
        """Let the threads end once the line is empty, and wait for that, though not for ever."""
        until = time.monotonic() + self._settings.timeout_s
        for _ in self._readers:
            self._line.put(None)
        self._why.put(None)
        for thread in self._readers:
            thread.join(max(0.0, until - time.monotonic()))
        self._read.put(None)
        for thread in self._others:
            thread.join(max(0.0, until - time.monotonic()))

    def check_room(self) -> None:
        """Turn a request away where no picture has a place.

        Raises:
            HTTPException: 429.
        """
        if self._pending >= self._places:
            _turn_away("pictures")

    def check_room_to_explain(self) -> None:
        """Turn a request away where no explanation has a place.

        Raises:
            HTTPException: 429.
        """
        if self._explaining >= _EXPLANATIONS:
            _turn_away("explanations")

    async def predict(
        self, served: Served, pictures: Sequence[Picture], guard: Guard | None
    ) -> list[Answer]:
        """Classify the pictures of a request; they are taken all together or not at all.

        Raises:
            HTTPException: 429 where no place is free, 503 where it takes too long.
        """
        self.check_room()
        jobs = [_Job(picture, served, guard, self._loop.create_future()) for picture in pictures]
        self._count(len(jobs))
        return await self._done(self._line, jobs)

    async def explain(
        self, served: Served, picture: Picture, explain: Callable[[Served, Picture], Any]
    ) -> Any:
        """Have something said of a picture that takes long; who waits no more has no place more.

        Args:
            served: the model.
            picture: one.
            explain: is called in a thread; a user's error that it raises is the request's.

        Raises:
            HTTPException: 429 where no place is free, 503 where it takes too long.
        """
        self.check_room_to_explain()
        job = _Job(picture, served, None, self._loop.create_future(), explain)
        self._explaining += 1
        try:
            return (await self._done(self._why, [job]))[0]
        finally:
            self._explaining -= 1

    async def _done(self, line: "SimpleQueue[_Job | None]", jobs: Sequence[_Job]) -> list[Any]:
        for job in jobs:
            line.put(job)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answers = await asyncio.gather(
                    *(job.future for job in jobs), return_exceptions=True
                )
        except TimeoutError:
            wait_s = self._settings.timeout_s
            raise HTTPException(
                503, f"no answer within {wait_s:g} s: try again", {"Retry-After": "1"}
            ) from None
        finally:
            for job in jobs:  # nobody waits for what is left
                job.future.cancel()
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _count(self, more: int) -> None:
        self._pending += more
        self._metrics.pending.set(self._pending)

    def _settle(self, job: _Job, result: object, kind: str) -> None:
        """In the event loop: a worker is done with a picture, whoever still waits."""
        counter = self._metrics.explanations
        if job.explain is None:
            self._count(-1)
            counter = self._metrics.pictures
        counter.labels(kind if not job.future.cancelled() else "late").inc()
        if job.future.done():
            return
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)

    def _tell(self, job: _Job, result: object, kind: str) -> None:
        self._loop.call_soon_threadsafe(self._settle, job, result, kind)

    def _thread(
        self, line: "SimpleQueue[_Job | None]", work: Callable[[_Job, int], None], number: int
    ) -> threading.Thread:
        """A thread that works on one picture of a line after the other."""

        def go_on() -> None:
            set_own_threads(1)
            self._begun.wait()
            while (job := line.get()) is not None:
                if job.explain is None:
                    self._stages["wait"].observe(time.perf_counter() - job.came)
                try:
                    if job.future.cancelled():
                        self._tell(job, None, "late")
                    else:
                        work(job, number)
                except Exception as error:
                    self._fail(job, error)
                del job  # its bytes and its model need not wait for the next one

        # The process can end whatever a picture does to its worker.
        return threading.Thread(target=go_on, daemon=True)

    def _fail(self, job: _Job, error: Exception) -> None:
        if isinstance(error, UnreadablePicture) and error.passing:  # no fault of the picture
            again = HTTPException(503, f"{error}: try again", {"Retry-After": "1"})
            self._tell(job, again, "failed")
        elif isinstance(error, UnreadablePicture):
            if job.explain is None:
                answer = Answer(job.picture.name, {}, str(error))
                self._tell(job, answer, "unreadable")
            else:
                self._tell(job, error, "unreadable")
        else:
            self._tell(job, error, "failed")

    def _fitted(self, job: _Job) -> np.ndarray:
        began = time.perf_counter()
        fitted = job.served.fitted(job.picture.data, self._settings.max_pixels)
        self._stages["read"].observe(time.perf_counter() - began)
        return fitted

    def _answer(self, job: _Job, worker: int) -> None:
        fitted = self._fitted(job)
        began = time.perf_counter()
        (answer,) = job.served.answers(worker, [job.picture.name], [fitted], job.guard)
        self._stages["classify"].observe(time.perf_counter() - began)
        self._tell(job, answer, "answered")

    def _pass_on(self, job: _Job, worker: int) -> None:
        self._read.put((job, self._fitted(job)))

    def _explain(self, job: _Job, worker: int) -> None:
        assert job.explain is not None
        self._tell(job, job.explain(job.served, job.picture), "answered")

    def _classify_batches(self) -> None:
        """The thread that has the GPU."""
        goes_on = True
        while goes_on:
            batch, goes_on = self._next_batch()
            self._classify(batch)
            del batch  # as in `_thread`

    def _next_batch(self) -> tuple[list[tuple[_Job, np.ndarray]], bool]:
        """What there is within a few milliseconds of the first, and whether more may come."""
        first = self._read.get()
        if first is None:
            return [], False
        batch = [first]
        deadline = time.perf_counter() + self._settings.batch_wait_ms / 1000
        while len(batch) < self._batch:
            try:
                more = self._read.get(timeout=max(0.0, deadline - time.perf_counter()))
            except Empty:
                break
            if more is None:
                return batch, False
            batch.append(more)
        return batch, True

    def _classify(self, batch: Sequence[tuple[_Job, np.ndarray]]) -> None:
        """Those asked for alike together: nearly always all."""
        alike: dict[tuple[int, int], list[tuple[_Job, np.ndarray]]] = {}
        for job, fitted in batch:
            alike.setdefault((id(job.served), id(job.guard)), []).append((job, fitted))
        for group in alike.values():
            jobs = [job for job, _ in group]
            first, names = jobs[0], [job.picture.name for job in jobs]
            began = time.perf_counter()
            try:
                answers = first.served.answers(0, names, [one for _, one in group], first.guard)
            except Exception as error:
                for job in jobs:
                    self._fail(job, error)
                continue
            spent = time.perf_counter() - began
            for job, answer in zip(jobs, answers, strict=True):
                self._stages["classify"].observe(spent)
                self._tell(job, answer, "answered")


def _turn_away(what: str) -> NoReturn:
    raise HTTPException(429, f"too many {what} are waiting: try again", {"Retry-After": "1"})
