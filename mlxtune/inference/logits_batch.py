"""mlx-lm's batch of answers that are being written, without the work that drawing does not need.

mlx-lm turns every row of logits into log-probabilities at each step, a tenth of a step of a small model on a CPU.
Drawing takes logits as well; who asks for log-probabilities gets them of their own row, from its logits.
"""

from typing import Any

import mlx.core as mx
from mlx_lm.generate import GenerationBatch


class LogitsBatch(GenerationBatch):
    """Answers without logits processors; ``logprobs`` of its responses are logits, or log-probabilities where mlx-lm
    made the first ones.
    """

    def _step(self) -> tuple[list[int], list[mx.array]]:
        inputs, before = self._next_tokens, self._next_logprobs
        logits = self.model(inputs[:, None], cache=self.prompt_cache)[:, -1, :]
        self._current_tokens, self._current_logprobs = inputs, before
        self._next_tokens, self._next_logprobs = self._draw(logits), list(logits)
        mx.async_eval(self._next_tokens)
        tokens: Any = inputs.tolist()
        for row, token in zip(self.tokens, tokens, strict=True):
            row.append(token)
        return tokens, before

    def _draw(self, logits: mx.array) -> mx.array:
        """A token of each row: of those that take the likeliest, in one go."""
        samplers: Any = self.samplers
        if all(sampler is self.fallback_sampler for sampler in samplers):
            return self.fallback_sampler(logits)
        return mx.concatenate([sampler(logits[row : row + 1]) for row, sampler in enumerate(samplers)])
