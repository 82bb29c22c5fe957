"""Chat templates put in place of a tokenizer's own, for base models that have none: packaged ones, and Jinja files.

A template is tried on one question and answer before it is used, in the sandbox that bounds what it costs
(`chat_sandbox`): what follows the answer has to be a token, since a model learns to stop at a token. That token then
ends a generation like those that the model's config names. Knows tokenizers; where a template is kept is runs' matter.
"""

import hashlib
import json
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from mlxtune.errors import ModelError
from mlxtune.models.chat_sandbox import compile_chat
from mlxtune.recipe.choices import CHAT_TEMPLATES

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

FILE = "chat_template.jinja"
"""A template's name in a model folder, which transformers and mlx_lm know, and in an adapter folder."""
GENERATION_CONFIG = "generation_config.json"

PACKAGED = Path(__file__).with_name("chat_templates")

ChatTemplate = str | Path
"""The name of a packaged one, or a file."""
ANSWER = "Certainly"
TRIAL = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": ANSWER}]
BOS = "{{- bos_token -}}\n"


def read_chat_template(template: ChatTemplate) -> str:
    """The text of a template. Raises: ModelError, if there is none of that name, or the file cannot be read."""
    if isinstance(template, str):
        if template not in CHAT_TEMPLATES:
            remedy = f"choose from {', '.join(CHAT_TEMPLATES)}, or name a file"
            raise ModelError("there is no such chat template", where=template, remedy=remedy)
        return (PACKAGED / f"{template}.jinja").read_text(encoding="utf-8")
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        remedy = f"name a Jinja file, or one of {', '.join(CHAT_TEMPLATES)}"
        raise ModelError(f"the chat template cannot be read: {what}", where=template, remedy=remedy) from error


def chat_template_sha256(template: ChatTemplate | None) -> str | None:
    """What a template says, as a hash; None without one. Raises: ModelError."""
    return None if template is None else hashlib.sha256(read_chat_template(template).encode()).hexdigest()


def put_chat_template(tokenizer: "TokenizerWrapper", template: ChatTemplate) -> None:
    """Have ``tokenizer`` render chats by ``template``, and end a generation where it ends a turn.

    A packaged one begins with BOS where the tokenizer puts it before any text. One that ends no turn is left so: the
    last answer of a row then gets EOS.

    Raises: ModelError, with the line, for what is no template; for one that refuses a question and its answer, or that
        ends a turn with anything but a token of ``tokenizer``.
    """
    text = read_chat_template(template)
    before = tokenizer.encode("")
    if isinstance(template, str) and before and before[0] == tokenizer.bos_token_id:
        text = BOS + text
    tokenizer.chat_template, tokenizer.has_chat_template, tokenizer._chat_template = text, True, None  # noqa: SLF001 - mlx_lm's own renderer goes first
    try:
        rendered = _try(tokenizer, text)
    except Exception as error:  # a template is a stranger's program, and fails in any way
        where = template if (line := _line_of(error)) is None else f"{template}:{line}"
        remedy = "mend it, or choose another in data.chat_template"
        raise ModelError(f"the chat template does not work: {failure_of(error)}", where=where, remedy=remedy) from error
    _, found, rest = rendered.rpartition(ANSWER)
    if not found:
        raise ModelError(
            "the chat template leaves out the answer", where=template, remedy="render every turn's content"
        )
    if rest.strip():
        tokenizer.add_eos_token(str(_turn_end(tokenizer, rest.strip(), template)))


def _try(tokenizer: "TokenizerWrapper", text: str) -> str:
    """What a template makes of `TRIAL`. Raises: anything that a template's code can."""
    given = {"messages": TRIAL, "tools": None, "documents": None, "add_generation_prompt": False}
    return compile_chat(text).render({**tokenizer.special_tokens_map, **given, "enable_thinking": False})


def _turn_end(tokenizer: "TokenizerWrapper", rest: str, template: ChatTemplate) -> int:
    """The id of the token that ends a turn, where ``rest`` follows an answer. Raises: ModelError, if it is none."""
    known = {token.content: i for i, token in tokenizer.added_tokens_decoder.items()}
    known |= {tokenizer.convert_ids_to_tokens(i): i for i in tokenizer.eos_token_ids}
    ending = max((text for text in known if text and rest.startswith(text)), key=len, default=None)
    if ending is None:
        raise ModelError(
            f"the chat template ends a turn with {rest.split(maxsplit=1)[0]!r}, which is no token of this model's "
            "tokenizer: the model could never stop",
            where=template,
            remedy="choose instruction, which ends turns with the EOS that every model has, or end them with eos_token",
        )
    return known[ending]


def failure_of(error: Exception) -> str:
    """What a template's failure says of itself, which for some is nothing but a kind."""
    return str(error) or type(error).__name__


def _line_of(error: Exception) -> int | None:
    """The template's line where it went wrong, where jinja2 knows one."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return frames[-1].lineno if frames else None


def template_files(tokenizer: "TokenizerWrapper", folder: Path) -> dict[str, str]:
    """What the model in ``folder`` needs beside it to be asked by ``tokenizer``'s template: name and content.

    The template, and generation_config.json with every token that ends an answer, where mlx_lm and transformers look.
    """
    path = folder / GENERATION_CONFIG
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings["eos_token_id"] = sorted(tokenizer.eos_token_ids)
    return {FILE: str(tokenizer.chat_template), GENERATION_CONFIG: json.dumps(settings, indent=2) + "\n"}
