"""Figures of a running server, in the form that Prometheus reads.

They are counted in a registry of this server's own, not in the process-wide one. Labels take few values: a path or a
model that the server does not know counts as "other" or "unknown", or a stranger's requests would fill the memory.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlxtune.deployment.server.guard import CLOSED

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""Of what `Metrics.render` gives."""
ENDPOINTS = (
    "/",
    "/docs",
    "/health",
    "/metrics",
    "/openapi.json",
    "/ready",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
)
FOLDERS = ("/page", "/v1/models")
"""What lies under these counts as the folder."""
FIRST_TOKEN_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
ANSWER_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
"""Upper ends of the histograms' buckets, in seconds: from a tiny model's to the longest that a request may take."""


class Metrics:
    """The figures of one server; every method may be called from any thread.

    Args:
        models: the names that are served.
        waiting, active, kept_bytes: asked for the present figure each time that the figures are read: answers that
            are not begun, answers that are being written, and the memory of prompts that were read and are kept.
    """

    def __init__(
        self,
        models: Iterable[str],
        *,
        waiting: Callable[[], float],
        active: Callable[[], float],
        kept_bytes: Callable[[], float],
    ) -> None:
        self._models = frozenset(models)
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "mlxtune_requests",
            "Requests that were answered or refused, by HTTP status; 499: the client went away before.",
            ["endpoint", "model", "status"],
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "mlxtune_prompt_tokens", "Tokens of the prompts that were asked.", ["model"], registry=registry
        )
        self._completion_tokens = Counter(
            "mlxtune_completion_tokens", "Tokens that were written.", ["model"], registry=registry
        )
        self._first_token = Histogram(
            "mlxtune_first_token_seconds",
            "From a request to the first token of its answer.",
            ["model"],
            buckets=FIRST_TOKEN_S,
            registry=registry,
        )
        self._answer = Histogram(
            "mlxtune_answer_seconds",
            "From a request to the end of its answer.",
            ["model"],
            buckets=ANSWER_S,
            registry=registry,
        )
        _gauge("mlxtune_answers_waiting", "Answers that are not begun.", waiting, registry)
        _gauge("mlxtune_answers_active", "Answers that are being written.", active, registry)
        _gauge("mlxtune_kept_bytes", "Memory of prompts that were read and are kept.", kept_bytes, registry)

    def count_request(self, path: str, model: str | None, status: int) -> None:
        """One request is over.

        Args:
            path: of its URL, without the query.
            model: None, where it came to none.
        """
        self._requests.labels(_endpoint(path), "" if model is None else self._known(model), str(status)).inc()

    def count_tokens(self, model: str, *, prompt: int, completion: int) -> None:
        """An answer is over, whether it came to its end or not."""
        self._prompt_tokens.labels(self._known(model)).inc(prompt)
        self._completion_tokens.labels(self._known(model)).inc(completion)

    def observe_first_token(self, model: str, seconds: float) -> None:
        """The first token of a request's answer is there."""
        self._first_token.labels(self._known(model)).observe(seconds)

    def observe_answer(self, model: str, seconds: float) -> None:
        """A request's answer is whole; one that broke off is not observed, since it would seem fast."""
        self._answer.labels(self._known(model)).observe(seconds)

    def render(self) -> bytes:
        """All figures, as `CONTENT_TYPE` says."""
        return generate_latest(self._registry)

    def _known(self, model: str) -> str:
        return model if model in self._models else "unknown"


def counted(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """``app`` with each of its requests counted at its end: put it around the guard, and what is refused counts too.

    The model is what the application leaves in ``request.state.model``.
    """

    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        status: int | None = None

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, send_on)
        except Exception:
            status = status or 500  # as the server will answer
            raise
        finally:
            metrics.count_request(scope["path"], state.get("model"), status or CLOSED)

    return count


def _endpoint(path: str) -> str:
    if path in ENDPOINTS:
        return path
    return next((folder for folder in FOLDERS if path.startswith(f"{folder}/")), "other")


def _gauge(name: str, said: str, figure: Callable[[], float], registry: CollectorRegistry) -> None:
    Gauge(name, said, registry=registry).set_function(figure)
