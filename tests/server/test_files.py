"""A page's files are served from memory, and nothing beside them."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from vitreous.pages.classify import page_files
from vitreous.server.files import add_files


def test_files_have_their_kinds_and_are_asked_for_once():
    app = FastAPI()
    files = {"index.html": b"<title>page</title>", "page/parts/engine.js": b"export {}"}
    add_files(app, files, "index.html")
    client = TestClient(app)
    page = client.get("/")
    assert page.text == "<title>page</title>"
    assert page.headers["content-type"].startswith("text/html")
    script = client.get("/page/parts/engine.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = client.get("/page/parts/engine.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("page/other.js", "page/../../outside.txt", "page/parts", "page/", "index.html"):
        assert client.get(f"/{path}").status_code == 404, path
    assert "/page/parts/engine.js" not in client.get("/openapi.json").text


def test_the_page_has_what_its_engine_takes_and_nothing_inline():
    for engine, needed in {
        "server": {"page/engine-server.js"},
        "local": {"page/engine-local.js", "page/local-worker.js"},
    }.items():
        files = page_files(engine)
        assert {name for name in files if "engine" in name or "worker" in name} == needed
        html = files["index.html"].decode()
        assert f'<meta name="engine" content="{engine}">' in html
        assert ("http-equiv" in html) == (engine == "local")
        assert " style=" not in html
        assert "<style" not in html
        assert html.count("<script") == html.count("<script type=") == 1
        assert not any(name.endswith((".py", ".pyc")) for name in files)
