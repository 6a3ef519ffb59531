"""sparsejax: LLaMA-style language models that are sparse from the first step to the last."""

__version__ = "0.1.0"
