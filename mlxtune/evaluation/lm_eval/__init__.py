"""The bridge to lm-evaluation-harness (the extra ``lm-eval``): our networks on its tasks, by its prompts and scores."""
