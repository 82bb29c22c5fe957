"""Errors as OpenAI's API tells them: an HTTP status, and what is wrong with which field."""

from collections.abc import Mapping
from typing import Any

from mlxtune.errors import MlxtuneError

INVALID = "invalid_request_error"


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP's.
        message: a sentence for whoever sent the request, the remedy included.
        param: the field that it is about.
        code: a word for programs, such as ``model_not_found``.
        headers: to send along, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,  # noqa: A002 - the wire's own name
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


def error_body(error: ApiError) -> dict[str, Any]:
    """The JSON of an error. Source: https://platform.openai.com/docs/guides/error-codes"""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def from_own(error: MlxtuneError, *, status: int = 400, param: str | None = None, code: str | None = None) -> ApiError:
    """One of mlxtune's errors about a request, with its remedy, told to whoever sent it.

    Args:
        param: the field that it is about; None: where the error says that it is.
    """
    said = error.message if error.remedy is None else f"{error.message}; {error.remedy}"
    return ApiError(status, said, param=error.where if param is None else param, code=code)
