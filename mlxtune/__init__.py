"""mlxtune: fine-tune a language model on your own data, and prove that it got better."""

from mlxtune.device.blas import open_blas

open_blas()
