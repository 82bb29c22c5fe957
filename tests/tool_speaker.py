"""A tiny tokenizer whose chat template has tools, as Hermes and Qwen write them, and others' ways to write calls."""

from pathlib import Path

from tiny import tiny_backend, write_tokenizer
from tokenizers import AddedToken

TOLD = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
)
TURN = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + (message.content or '') }}"
    "{% for tool_call in message.tool_calls or [] %}{% set tool_call = tool_call.function %}CALL{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
HERMES = TOLD + TURN.replace(
    "CALL",
    "{{ '\n<tool_call>\n' }}"
    '{"name": "{{ tool_call.name }}", "arguments": {{ tool_call.arguments | tojson }}}\n</tool_call>',
)
BARE = TOLD + TURN.replace("CALL", '{"name": "{{ tool_call.name }}", "parameters": {{ tool_call.arguments | tojson }}}')
XML = TOLD + TURN.replace(
    "CALL",
    "<tool_call>\n<function={{ tool_call.name }}>\n{% for key, value in tool_call.arguments.items() %}"
    "<parameter={{ key }}>\n{{ value }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
)
LIST = TOLD + (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + (message.content or '') }}"
    "{% if message.tool_calls %}[TOOL_CALLS] [{% for tool_call in message.tool_calls %}"
    '{"name": "{{ tool_call.function.name }}", "arguments": {{ tool_call.function.arguments | tojson }}, '
    '"id": "{{ tool_call.id }}"}{{ ", " if not loop.last }}{% endfor %}]{% endif %}'
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Mistral's: one list after a mark that is a token and has no end, with ids."""


def tool_tokenizer(folder: Path, chat_template: str = HERMES, *, special: tuple[str, ...] = ()):
    """mlx-lm's tokenizer wrapper over the tiny tokenizer, with further special tokens after its bytes."""
    from mlx_lm.tokenizer_utils import load

    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, chat_template=chat_template)
    backend = tiny_backend()
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    backend.save(str(folder / "tokenizer.json"))
    return load(folder, eos_token_ids=[2])
