"""The page at ``/docs``: what ``/openapi.json`` says, as plain HTML that loads nothing.

Swagger UI, FastAPI's own page, comes from a content delivery network and takes a megabyte of script
that the security policy of this server would have to trust.
"""

import json
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from vitreous.pages.render import environment, render

#: The styles stand in the page itself; nothing else may.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"


def docs_page(app: FastAPI) -> HTMLResponse:
    """The documentation of an app's routes."""
    return HTMLResponse(_html(app), headers={"Content-Security-Policy": _POLICY})


@cache
def _html(app: FastAPI) -> str:
    described = app.openapi()
    routes = [
        {"method": method.upper(), "path": path, **_route(operation)}
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = {
        name: json.dumps(one, indent=2)
        for name, one in described.get("components", {}).get("schemas", {}).items()
    }
    page = environment("vitreous.server").get_template("docs.html.jinja")
    return render(page, {"info": described["info"], "routes": routes, "schemas": schemas})


def _route(operation: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "parameters": [
            {"name": one["name"], "description": one.get("description", "")}
            for one in operation.get("parameters", ())
        ],
        "bodies": list(operation.get("requestBody", {}).get("content", ())),
        "answers": [
            {"status": status, "description": answer["description"]}
            for status, answer in operation["responses"].items()
        ],
    }
