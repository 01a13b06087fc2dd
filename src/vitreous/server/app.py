"""The routes: what can be asked, and what comes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from pydantic_core import PydanticSerializationError, to_json
from starlette.types import ASGIApp

from vitreous.errors import RunError, UnreadablePicture, UserError, VitreousError
from vitreous.explanation.pictures import Question
from vitreous.pages.classify import page_files
from vitreous.server import schema
from vitreous.server.bodies import Bodies
from vitreous.server.docs import docs_page
from vitreous.server.explained import Explainer
from vitreous.server.files import add_files
from vitreous.server.metrics import Metrics
from vitreous.server.model import VERSION, Served
from vitreous.server.security import AccessControl
from vitreous.server.settings import Settings
from vitreous.server.work import Work

_DESCRIPTION = """
Pictures in, classes out. Of a request with one picture as its body the answer is one object; of a
form or a list in JSON, `{"predictions": [...]}` in the same order.
"""


class Service:
    """One model over HTTP.

    Args:
        served: the model, warmed up.
        settings: limits.

    Attributes:
        app: what a web server runs (ASGI).
        served: the model that new requests are for.
        metrics: what is counted.
    """

    def __init__(self, served: Served, settings: Settings) -> None:
        self.served, self.metrics = served, Metrics()
        self._settings = settings
        self._work = Work(served, settings, self.metrics)
        self._bodies = Bodies(settings)
        self._explainer = Explainer(settings.max_pixels)
        routes = self._routes()
        paths = {route.path for route in routes.routes if hasattr(route, "path")}  # pyright: ignore[reportAttributeAccessIssue]
        self._access = AccessControl(routes, settings, self.metrics, paths)
        self.app: ASGIApp = self._access
        if settings.allow_origins:  # outside, for a page to be told of what is refused, too
            self.app = CORSMiddleware(
                self._access,
                allow_origins=settings.allow_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("Authorization", "Content-Type"),
                expose_headers=("Retry-After",),
            )

    @property
    def draining(self) -> bool:
        """Whether the server is about to end."""
        return self._access.draining

    def take(self, served: Served) -> None:
        """Answer with another model, warmed up, from now on; callable from any thread."""
        self.served = served
        self._explainer.forget()

    def drain(self) -> None:
        """Answer what comes, and let connections end with it."""
        self._access.draining = True

    def _routes(self) -> FastAPI:
        app = FastAPI(
            title="vitreous",
            version=VERSION,
            description=_DESCRIPTION.strip(),
            docs_url=None,
            redoc_url=None,
            lifespan=self._lifespan,
        )
        app.add_exception_handler(RequestValidationError, _invalid)  # pyright: ignore[reportArgumentType]
        app.add_exception_handler(VitreousError, _in_words)  # pyright: ignore[reportArgumentType]
        app.add_exception_handler(Exception, _at_fault)
        about_pictures = schema.problems(400, 401, 403, 408, 413, 415, 422, 429, 431, 503)
        app.add_api_route(
            "/v1/predict",
            self.predict,
            methods=["POST"],
            summary="Classify pictures",
            responses={200: {"model": schema.Prediction | schema.Predictions}, **about_pictures},
            openapi_extra={"requestBody": schema.PICTURES},
        )
        app.add_api_route(
            "/v1/explain",
            self.explain,
            methods=["POST"],
            summary="Say where an answer comes from",
            responses={
                200: {"model": schema.Explanation},
                **about_pictures,
                **schema.problems(501),
            },
            openapi_extra={"requestBody": schema.ONE_PICTURE},
        )
        app.add_api_route(
            "/v1/model",
            self.model,
            summary="Say what is served",
            response_model=None,
            responses={200: {"model": schema.Model}, **schema.problems(401, 403)},
        )
        app.add_api_route("/healthz", self.healthz, summary="Whether the process answers")
        app.add_api_route(
            "/readyz",
            self.readyz,
            summary="Whether requests are wanted",
            responses=schema.problems(503),
        )
        app.add_api_route(
            "/metrics",
            self.metrics_text,
            summary="Counts and times, for Prometheus",
            response_class=Response,
            responses={200: {"content": {"text/plain": {}}}, **schema.problems(401, 403)},
        )
        app.add_api_route("/docs", partial(docs_page, app), include_in_schema=False)
        add_files(app, page_files("server"), "index.html")
        return app

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._work.start(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(self._work.stop)

    async def predict(
        self,
        request: Request,
        sets: Annotated[
            float | None,
            Query(gt=0, lt=1, description="Coverage of the sets of classes, such as 0.9."),
        ] = None,
        by_class: Annotated[bool, Query(description="With sets: in each class.")] = False,
        refuse: Annotated[bool, Query(description="Answer none of these where it is.")] = False,
    ) -> Response:
        """Classify one picture or several.

        The body is a picture (`image/*` or `application/octet-stream`), a form whose files are
        pictures, or JSON: `{"pictures": [{"name": "a.jpg", "data": "<base64>"}]}`.
        """
        served = self.served
        self._work.check_room()
        # For many classes the limits of new sets take a while.
        asked = sets is not None or by_class or refuse
        guard = await asyncio.to_thread(served.guard, sets, by_class, refuse) if asked else None
        async with self._bodies.read(request) as (pictures, several):
            answers = [
                answer.to_json() for answer in await self._work.predict(served, pictures, guard)
            ]
        if several:
            return _json({"predictions": answers})
        (answer,) = answers
        return _json(answer) if "error" not in answer else _problem(422, answer["error"])

    async def explain(
        self,
        request: Request,
        class_name: Annotated[
            str | None, Query(description="The class to explain; by default the likeliest.")
        ] = None,
        method: Annotated[
            str | None, Query(description="By default the best of those that pass their check.")
        ] = None,
    ) -> Response:
        """Show where in a picture the answer comes from, and whether that can be believed."""
        served = self.served
        if not served.explainable:
            raise HTTPException(501, "a sealed file has no insides to look into: serve the run")
        question = Question.of(method, class_name, None, None)  # pyright: ignore[reportArgumentType]
        self._work.check_room_to_explain()
        async with self._bodies.read(request) as (pictures, several):
            if several:
                raise HTTPException(415, "send one picture, as image/* or application/octet-stream")
            explain = partial(self._explainer.explain, question=question)
            return _json(await self._work.explain(served, pictures[0], explain))

    async def model(self) -> Response:
        """What is served: classes, abilities and limits."""
        limits = ("max_bytes", "max_pixels", "max_pictures")
        return _json(
            {**self.served.describe(), **{name: getattr(self._settings, name) for name in limits}}
        )

    async def healthz(self) -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    async def readyz(self) -> dict[str, str]:
        """Whether more requests are wanted: not any more while the server ends."""
        if self.draining:
            raise HTTPException(503, "the server is ending", {"Retry-After": "1"})
        return {"status": "ready"}

    async def metrics_text(self) -> Response:
        """Counts and times; nothing of a picture or an answer."""
        text, kind = self.metrics.text()
        return Response(text, media_type=kind)


def _json(value: Any) -> Response:
    try:
        body = to_json(value)  # a thousand classes in a tenth of the time of Python's own
    except PydanticSerializationError:  # a name may hold half a character, which UTF-8 can't
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        body = text.encode("utf-8", "backslashreplace")
    return Response(body, media_type="application/json")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """A query that makes no sense, without repeating what was sent."""
    said = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()]
    return _problem(422, "; ".join(said))


async def _at_fault(*_: object) -> JSONResponse:
    """Something that nobody foresaw: the log has it, the client needn't."""
    return _problem(500, "something went wrong here; the server's log says what")


async def _in_words(_: Request, error: VitreousError) -> JSONResponse:
    if isinstance(error, RunError):  # the model's file is gone, or another one
        return _problem(503, str(error), {"Retry-After": "5"})
    if isinstance(error, (UserError, UnreadablePicture)):
        return _problem(422, str(error))
    return _problem(500, str(error))
