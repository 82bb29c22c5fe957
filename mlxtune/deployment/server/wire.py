"""What a request may say, field by field, as OpenAI's API names them.

A field that is not here is refused by name, and so is a value that would ask for what the server does not do: nothing
is read and then ignored. ``top_k`` and ``min_p`` are not OpenAI's; other servers have them under these names.

Source: https://platform.openai.com/docs/api-reference/chat/create and .../completions/create
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlxtune.deployment.server.errors import ApiError
from mlxtune.json_text import name_of_type

STOPS = 4
TOP_LOGPROBS = 20
TOP_LOGPROBS_OF_COMPLETIONS = 5

NOT_DONE = {
    "audio": "the models here write text",
    "best_of": "ask for n answers, and choose among them",
    "function_call": "use tool_choice",
    "functions": "use tools",
    "logprobs": "it is true or false here, and top_logprobs the number",
    "metadata": "nothing is stored",
    "modalities": "the models here write text",
    "moderation": "there is none",
    "prediction": "answers are written without one",
    "prompt_cache_key": "prompts that begin alike share their beginning by themselves",
    "prompt_cache_options": "prompts that begin alike share their beginning by themselves",
    "prompt_cache_retention": "prompts that begin alike share their beginning by themselves",
    "reasoning_effort": "a model thinks as it was trained to",
    "safety_identifier": "nobody is told who asks",
    "service_tier": "there is one",
    "store": "nothing is stored",
    "suffix": "text is continued at its end alone",
    "user": "nobody is told who asks",
    "verbosity": "say in the prompt how long the answer should be",
    "web_search_options": "the server fetches nothing",
}
"""Fields of OpenAI's that are refused, each with the reason or the way out."""


Kind = TypeVar("Kind", bound="Asked")


class Wire(BaseModel):
    """A part of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(Wire):
    """What a stream holds beside the answer."""

    include_usage: bool = False


class FunctionName(Wire):
    """The function that has to be called."""

    name: str


class NamedTool(Wire):
    """``tool_choice`` that names a function."""

    type: Literal["function"]
    function: FunctionName


class JsonSchema(Wire):
    """The schema that an answer follows; it always does, ``strict`` or not."""

    name: str = ""
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Wire):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Wire):
    """Some JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Wire):
    """JSON by a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
Number = Annotated[float, Field(strict=False, allow_inf_nan=False)]
"""A whole number is one too."""


class Asked(Wire):
    """What chats and plain completions have in common."""

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[Number, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts to stop at."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"type": "string"},
    },
    "required": ["role", "content"],
}
"""How a turn is described; it may also have its content in parts of text, calls of tools, or a call's id."""


class ChatRequest(Asked):
    """The body of ``POST /v1/chat/completions``. ``messages`` and ``tools`` are read as training rows are."""

    messages: Annotated[list[Any], Field(json_schema_extra={"items": MESSAGE, "minItems": 1})]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None


class CompletionRequest(Asked):
    """The body of ``POST /v1/completions``."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=TOP_LOGPROBS_OF_COMPLETIONS)] | None = None


def read_body(kind: type[Kind], body: Any) -> Kind:
    """A request's body as ``kind``. Raises: ApiError, that names the first field that is wrong."""
    if not isinstance(body, dict):
        raise ApiError(400, f"the body is {name_of_type(body)}, not an object")
    given = {name: value for name, value in body.items() if value is not None}
    for name, reason in NOT_DONE.items():
        if name in given and name not in kind.model_fields:
            raise ApiError(400, f"{name} is not supported: {reason}", param=name, code="unsupported_parameter")
    try:
        asked = kind.model_validate(given)
    except ValidationError as error:
        raise _fault(error.errors(include_url=False, include_input=False), kind) from None
    if len(asked.stops) > STOPS:
        raise ApiError(400, f"stop has {len(asked.stops)} texts; give at most {STOPS}", param="stop")
    if asked.stream_options is not None and not asked.stream:
        raise ApiError(400, "stream_options goes with stream: true", param="stream_options")
    return asked


def _fault(errors: Sequence[Mapping[str, Any]], kind: type[Asked]) -> ApiError:
    """The first of pydantic's errors; what the client sent is not in it."""
    first = errors[0]
    place = [str(part) for part in first["loc"]]
    param = place[0] if place else None
    if first["type"] == "extra_forbidden":
        if len(place) == 1:
            known = ", ".join(sorted(kind.model_fields))
            return ApiError(400, f"unknown field {param}; there are: {known}", param=param, code="unknown_parameter")
        return ApiError(400, f"unknown field {'.'.join(place)}", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"{'.'.join(place)} is missing", param=param, code="missing_required_parameter")
    return ApiError(400, f"{'.'.join(place)}: {first['msg'].lower()}", param=param, code="invalid_value")
