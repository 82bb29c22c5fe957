"""What all sections of a recipe have in common: they are strict, they cannot be changed, and they document themselves.

The string under a field is its help, its reference and its entry in the JSON Schema.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError


class Settings(BaseModel):
    """A section of a recipe."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


FilePath = Annotated[Path, Field(strict=False)]
"""A path; the loader makes it absolute. Text is what a recipe has, hence not strict."""

Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]
"""At least one name; a list is what a recipe has, hence not strict."""


def told_by_type(default: str) -> Discriminator:
    """Which of several sections is meant: what ``type`` says, ``default`` where it is left out or there is no section.

    A type that is null is refused as the word that a recipe writes for it.
    """

    def type_of(value: Any) -> Any:
        told = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)
        return "null" if told is None else told

    return Discriminator(type_of)


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
