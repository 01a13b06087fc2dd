"""A page's files are served from memory, and nothing beside them."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from vitreous.server.files import add_folder


def test_files_have_their_kinds_and_are_asked_for_once(tmp_path):
    (tmp_path / "index.html").write_text("<title>page</title>")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "engine.js").write_text("export {}")
    (tmp_path / "secret.py").write_text("")
    (tmp_path.parent / "outside.txt").write_text("outside")
    app = FastAPI()
    found = add_folder(app, tmp_path, "index.html", "/page/")
    assert found == ["/", "/page/index.html", "/page/parts/engine.js"]
    (tmp_path / "index.html").write_text("changed")  # was read once
    client = TestClient(app)
    page = client.get("/")
    assert page.text == "<title>page</title>"
    assert page.headers["content-type"].startswith("text/html")
    script = client.get("/page/parts/engine.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = client.get("/page/parts/engine.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("secret.py", "../outside.txt", "%2e%2e/outside.txt", "parts", ""):
        assert client.get(f"/page/{path}").status_code == 404
    assert "/page/parts/engine.js" not in client.get("/openapi.json").text


def test_without_a_page_there_are_no_routes(tmp_path):
    app = FastAPI()
    assert add_folder(app, tmp_path / "none", "index.html", "/page/") == []
    assert TestClient(app).get("/").status_code == 404
