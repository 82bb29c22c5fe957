import time

import pytest
from serving import listening, serving_of

from mlxtune.deployment.server.app import make_app


def test_models_are_listed_the_tuned_one_first(client):
    assert [model.id for model in client.models.list()] == ["tiny", "base"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_model_that_is_not_there_is_not_found(http):
    answer = http.get("/v1/models/none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_server_that_runs_is_well(http, path):
    assert http.get(path).status_code == 200


def test_a_path_that_is_not_there_is_an_error_in_openais_form(http):
    for answer in (http.get("/v1/nothing"), http.get("/v1/chat/completions")):
        assert answer.status_code in (404, 405)
        assert answer.json()["error"]["message"]


def test_its_paths_are_described(http):
    described = http.get("/openapi.json").json()
    paths, schemas = described["paths"], described["components"]["schemas"]
    assert {"/v1/models", "/v1/chat/completions", "/v1/completions", "/health", "/ready"} <= paths.keys()
    body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "max_tokens", "tools"} <= schemas[body["$ref"].rpartition("/")[2]]["properties"].keys()


def test_a_client_that_goes_away_frees_its_place(tiny_run):
    import httpx2

    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1900, "stream": True}
    with serving_of(tiny_run) as serving, listening(make_app(serving)) as address:
        with httpx2.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=60) as answer:
            next(answer.iter_lines())
            assert serving.worker.active == 1
        with pytest.raises(httpx2.ReadTimeout):  # not streamed: the client gives up waiting
            httpx2.post(
                f"{address}/v1/chat/completions", json=body | {"stream": False}, timeout=httpx2.Timeout(5, read=0.3)
            )
        end = time.monotonic() + 30
        while serving.worker.active and time.monotonic() < end:
            time.sleep(0.01)
        assert (serving.worker.active, serving.worker.waiting) == (0, 0)
        assert httpx2.post(f"{address}/v1/chat/completions", json=body | {"stream": False, "max_tokens": 2}).is_success


def test_people_read_of_the_paths_without_the_network(http):
    page = http.get("/docs").text
    for word in ("POST /v1/chat/completions", "max_tokens", "GET /health", "top_logprobs"):
        assert word in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page


def test_what_was_written_is_counted(http, client):
    def written():
        count = 'mlxtune_completion_tokens_total{model="tiny"} '  # other files' tests ask the same server of others
        lines = http.get("/metrics").text.splitlines()
        return next(float(line.removeprefix(count)) for line in lines if line.startswith(count))

    asked = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    client.chat.completions.create(**asked)
    before = written()
    client.chat.completions.create(**asked)
    assert written() == before + 3
