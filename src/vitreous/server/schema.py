"""The shapes of bodies and answers, for people and programs that read ``/openapi.json``."""

from typing import Any

from pydantic import BaseModel, Field


class Prediction(BaseModel):
    """What the model says of one picture, as ``vitreous predict --json`` prints it."""

    file: str = Field(description="As the client calls it; 'picture' where it doesn't.")
    label: str | None = Field(None, description="The likeliest class; null where it is refused.")
    probability: float | None = Field(None, description="Of the label.")
    probabilities: dict[str, float] = Field(description="Of each class.")
    set: list[str] | None = Field(
        None, description="Where sets were asked for: the classes that may be, likeliest first."
    )
    refused: bool | None = Field(
        None, description="Where refusing was asked for: whether it is none of these."
    )
    reason: str | None = Field(None, description="In what it is unlike all pictures learned from.")


class Unreadable(BaseModel):
    """One picture of several that can't be read."""

    file: str
    error: str


class Predictions(BaseModel):
    """Several pictures, in their order."""

    predictions: list[Prediction | Unreadable]


class Explanation(BaseModel):
    """Where in a picture an answer comes from, and how far that can be believed."""

    file: str
    class_: str = Field(alias="class", description="That is explained.")
    probability: float = Field(description="Of that class.")
    method: str
    passed: bool = Field(description="Whether the map does better than chance on this picture.")
    verdict: str = Field(description="The same in words.")
    box: list[float] = Field(
        description="The part of the upright picture that the map lies over: left, top, width and "
        "height, as shares of the picture's."
    )
    heatmap: str = Field(description="Base64 of a PNG with transparency.")
    scores: dict[str, float]


class Model(BaseModel):
    """What is served."""

    name: str
    version: str
    classes: list[str]
    image_size: list[int] = Field(description="Height and width in pixels that the model sees.")
    precision: str
    runtime: str
    sets: bool = Field(description="Whether it gives sets.")
    coverages: list[float] | None = Field(description="Those it gives; null for any.")
    refuse: bool = Field(description="Whether it can say none of these.")
    explain: bool
    methods: list[str]
    max_bytes: int
    max_pixels: int
    max_pictures: int
    formats: list[str]
    license: str | None
    card: str | None = Field(description="Model card, Markdown.")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}

ONE_PICTURE: dict[str, Any] = {
    "required": True,
    "content": {"image/*": _BINARY, "application/octet-stream": _BINARY},
}
PICTURES: dict[str, Any] = {
    "required": True,
    "content": {
        **ONE_PICTURE["content"],
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["pictures"],
                "properties": {
                    "pictures": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                    }
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["pictures"],
                "properties": {
                    "pictures": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["data"],
                            "properties": {
                                "name": {"type": "string"},
                                "data": {"type": "string", "format": "byte"},
                            },
                        },
                    }
                },
            }
        },
    },
}

_REASONS = {
    400: "the client left, or the request is no HTTP",
    401: "no key, or a wrong one",
    403: "another web page, or another name of this machine",
    408: "the request took too long to arrive",
    413: "too many bytes or pictures",
    415: "not a picture, a form or JSON",
    422: "unreadable, or a question that makes no sense for this model",
    429: "too many are waiting: try again after `Retry-After` seconds",
    431: "the head of the request is too long",
    501: "this model can't be explained",
    503: "the answer took too long, the server is ending, or the model's file is gone",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the documentation of a route: what else than an answer may come."""
    return {status: {"model": Problem, "description": _REASONS[status]} for status in statuses}
