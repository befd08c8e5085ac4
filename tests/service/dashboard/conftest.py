"""Pages of the real application over a real store, read by a program or in a real browser."""

import shutil
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from service.processes.address import address, listen
from store.engine import Database
from store.settings import Settings
from tests.servers import skip_loudly
from tests.service.conftest import TOKEN
from tests.service.dashboard.browsing import Open
from tests.service.dashboard.store import Store

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",  # tests also run as root in a container, where Chromium refuses to start otherwise
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture
def store(client: TestClient, settings: Settings) -> Iterator[Store]:
    """Rows for the application of ``client``."""
    database = Database(settings.resolved_database_url)
    yield Store(database)
    database.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        skip_loudly(f"the dashboard in a browser; none of {', '.join(NAMES)} is on PATH")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def url(client: TestClient) -> Iterator[str]:
    """The application of ``client``, on a real port."""
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(client.app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()  # until it accepts, connections wait in the listener's queue
        yield address(listener)
        server.should_exit = True
        thread.join()


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Open]:
    """A signed-in page at a path; afterwards, what it asked of other sites or complained about."""
    contexts: list[BrowserContext] = []
    requested: list[str] = []
    complaints: list[str] = []

    def open_page(path: str, **options: object) -> Page:
        context = browser.new_context(base_url=url, **options)  # pyright: ignore[reportArgumentType]
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/login")
        page.fill("#token", TOKEN)
        page.click("main button[type=submit]")
        if path != "/":
            page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # data: is what a style sheet or a page carries itself
    assert {urlsplit(one).netloc for one in requested if not one.startswith("data:")} <= {
        urlsplit(url).netloc
    }
    assert complaints == []
