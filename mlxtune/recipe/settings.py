"""What all sections of a recipe have in common: they are strict, they cannot be changed, and they document themselves.

The string under a field is its help, its reference and its entry in the JSON Schema. Here are also the words for a
value whose work is not there yet: it is refused by name, never accepted and ignored.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

NOT_YET = "not_yet"
"""The pydantic error type of a value that is refused by name; its context has ``value``, ``now`` and ``key``."""


class Settings(BaseModel):
    """A section of a recipe."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


FilePath = Annotated[Path, Field(strict=False)]
"""A path; the loader makes it absolute. Text is what a recipe has, hence not strict."""

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]
"""At least one name; a list is what a recipe has, hence not strict."""


def _refusal(value: Any, now: str, key: str = "") -> PydanticCustomError:
    return PydanticCustomError(NOT_YET, "not available yet in this version", {"value": value, "now": now, "key": key})


def later(*values: object, now: str) -> BeforeValidator:
    """Refuses ``values`` as not yet available; ``now`` says what is."""

    def refuse_what_comes_later(value: Any) -> Any:
        if value in values:
            raise _refusal(value, now)
        return value

    return BeforeValidator(refuse_what_comes_later)


def later_types(*types: str, now: str) -> BeforeValidator:
    """Refuses a section whose ``type`` is one of ``types`` as a whole, so that its other keys are no faults."""

    def refuse_type_that_comes_later(value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") in types:
            raise _refusal(value["type"], now, "type")
        return value

    return BeforeValidator(refuse_type_that_comes_later)


def expected(what: str, *, or_section: bool = False) -> WrapValidator:
    """Says ``must be {what}`` once, where a union would tell of each of its members.

    With ``or_section`` one of them is a section: what is wrong inside a mapping is then told as it is.
    """

    def say_it_once(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            if or_section and isinstance(value, dict):
                raise
            raise PydanticCustomError("expected", "Input should be {what}", {"what": what}) from None

    return WrapValidator(say_it_once)
