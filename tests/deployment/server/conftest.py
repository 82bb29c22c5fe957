from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from chat_double import ChatDouble
from chat_window import Window
from serving import server_of

from mlxtune.deployment.server.page import PageModel

SYSTEM = "Answer in one word."
MODELS = (PageModel("tuned", SYSTEM, False, None), PageModel("base", SYSTEM, False, None))


@pytest.fixture(scope="session")
def address(tiny_run: Path) -> Iterator[str]:
    """Of a server of the tiny run and its base."""
    with server_of(tiny_run) as address:
        yield address


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def http(address: str) -> Iterator[httpx2.Client]:
    """Requests that OpenAI's client would not send."""
    with httpx2.Client(base_url=address, timeout=60) as http:
        yield http


@pytest.fixture
def chat_double(request: pytest.FixtureRequest) -> Iterator[ChatDouble]:
    """The server; a test that needs other models, or a key, gives them as the fixture's parameter."""
    settings: dict[str, Any] = {"models": MODELS} | getattr(request, "param", {})
    double = ChatDouble(**settings)
    yield double
    double.stop()


@pytest.fixture
def window(browser: Any, chat_double: ChatDouble) -> Iterator[Window]:
    """The page, opened. That the browser found nothing wrong with it is a part of every test."""
    pytest.importorskip("playwright.sync_api").expect.set_options(timeout=20_000)
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    context.set_default_timeout(20_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = Window(context.new_page(), chat_double.url)
    yield opened
    context.close()
    assert opened.wrong == []
