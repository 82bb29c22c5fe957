import pytest
from asgi_calls import call, request
from fastapi import FastAPI, Request
from prometheus_client.parser import text_string_to_metric_families

from mlxtune.deployment.server.guard import GuardSettings, guarded
from mlxtune.deployment.server.metrics import CONTENT_TYPE, Metrics, counted


def new_metrics(**gauges) -> Metrics:
    return Metrics(["tiny", "base"], **({name: lambda: 0 for name in ("waiting", "active", "kept_bytes")} | gauges))


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """What a reader of Prometheus's format sees: name, labels' values in the order of their names, and the figure."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def requests(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {key[1:]: value for key, value in samples(metrics).items() if key[0] == "mlxtune_requests_total"}


def test_requests_are_counted_by_endpoint_model_and_status():
    metrics = new_metrics()
    for _ in range(2):
        metrics.count_request("/v1/completions", "tiny", 200)
    metrics.count_request("/v1/completions", "tiny", 429)
    metrics.count_request("/health", None, 200)
    assert requests(metrics) == {
        ("/v1/completions", "tiny", "200"): 2,
        ("/v1/completions", "tiny", "429"): 1,
        ("/health", "", "200"): 1,
    }


def test_strangers_cannot_make_labels():
    metrics = new_metrics()
    for number in range(50):
        metrics.count_request(f"/secret{number}", f"model{number}", 404)
        metrics.count_request(f"/v1/models/model{number}", None, 404)
        metrics.count_request(f"/page/file{number}.js", None, 404)
        metrics.count_tokens(f"model{number}", prompt=1, completion=2)
    assert requests(metrics) == {
        ("other", "unknown", "404"): 50,
        ("/v1/models", "", "404"): 50,
        ("/page", "", "404"): 50,
    }
    assert samples(metrics)["mlxtune_completion_tokens_total", "unknown"] == 100


def test_tokens_are_summed_by_model():
    metrics = new_metrics()
    metrics.count_tokens("tiny", prompt=7, completion=3)
    metrics.count_tokens("tiny", prompt=5, completion=0)
    found = samples(metrics)
    assert found["mlxtune_prompt_tokens_total", "tiny"] == 12
    assert found["mlxtune_completion_tokens_total", "tiny"] == 3


def test_times_fall_into_buckets():
    metrics = new_metrics()
    for seconds in (0.01, 0.3, 1000):
        metrics.observe_first_token("base", seconds)
    metrics.observe_answer("base", 2.5)
    found = samples(metrics)
    buckets = [found["mlxtune_first_token_seconds_bucket", end, "base"] for end in ("0.02", "0.5", "60.0", "+Inf")]
    assert buckets == [1, 2, 2, 3]
    assert found["mlxtune_answer_seconds_sum", "base"] == 2.5
    assert found["mlxtune_answer_seconds_count", "base"] == 1


def test_gauges_are_asked_each_time():
    figures = iter([3, 4])
    metrics = new_metrics(waiting=lambda: next(figures), kept_bytes=lambda: 1024)
    assert samples(metrics)["mlxtune_answers_waiting",] == 3
    found = samples(metrics)
    assert found["mlxtune_answers_waiting",] == 4
    assert found["mlxtune_answers_active",] == 0
    assert found["mlxtune_kept_bytes",] == 1024


def test_two_servers_in_one_process_count_by_themselves():
    first, second = new_metrics(), new_metrics()
    first.count_request("/", None, 200)
    assert requests(second) == {}


def test_the_format_is_prometheuss_text():
    assert CONTENT_TYPE.startswith("text/plain; version=1.0.0")


def an_app() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/completions", status_code=202)
    async def answer(request: Request) -> None:
        request.state.model = (await request.json())["model"]

    return app


def test_each_request_is_counted_with_the_model_that_the_application_tells_and_refusals_too():
    metrics = new_metrics()
    app = counted(guarded(an_app(), GuardSettings("127.0.0.1")), metrics)
    json = {"content-type": "application/json"}
    call(app, request("POST", "/v1/completions", json), [b'{"model": "tiny"}'])
    call(app, request("POST", "/v1/completions", json, state={}), [b'{"model": "tiny"}'])
    call(app, request("POST", "/v1/completions"), [b"{}"])
    call(app, request("POST", "/v1/completions", json), [None])
    call(app, request("GET", "/wp-login.php"))
    assert requests(metrics) == {
        ("/v1/completions", "tiny", "202"): 2,
        ("/v1/completions", "", "415"): 1,
        ("/v1/completions", "", "499"): 1,
        ("other", "", "404"): 1,
    }


def test_an_application_that_fails_counts_as_500():
    async def app(scope, receive, send):
        raise LookupError("a bug")

    metrics = new_metrics()
    with pytest.raises(LookupError):
        call(counted(app, metrics), request("GET", "/"))
    assert requests(metrics) == {("/", "", "500"): 1}
