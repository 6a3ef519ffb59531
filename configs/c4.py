"""A LLaMA of a published size on C4 with T5's tokenizer, as both papers train: the base of all of configs/papers/.

    sparsejax train --config=configs/c4.py:size=60m,density=0.25 --workdir=runs/c4-60m

Arguments are those of llama.py. T5's tokenizer, 32,000 pieces, is the file `t5-base.spiece.model` in the working
directory, or the one that --config.data.tokenizer_path names. Batches are the 512 rows of 256 tokens of SMET's launch
files.

The text is C4 `en`: 1,024 files of JSON lines, 0.3 TB, read from the Hugging Face Hub. Nobody trains from there twice:
`sparsejax tokenize` makes a token set of all of it or of a part, and SPARSEJAX_C4 names that set, a directory or a
gs:// URI, to this config and to those that build on it. docs/DATA.md has the commands, sizes and other layouts.
"""

import os

from ml_collections import ConfigDict

from configs.llama import get_config as llama

TOKENS = "SPARSEJAX_C4"
TEXT = "hf://datasets/allenai/c4/en"


def get_config(arguments: str) -> ConfigDict:
    """The config of llama.py with the papers' text, tokenizer and batch; raises ``ConfigError``."""
    c = llama(arguments)
    c.data.update(tokenizer="sentencepiece", sequence_length=256)
    if TOKENS in os.environ:
        c.data.update(source="tokens", path=os.environ[TOKENS])
    else:
        c.data.update(source="jsonl", path=f"{TEXT}/c4-train.*.json.gz")
        c.data.update(validation_path=f"{TEXT}/c4-validation.*.json.gz", tokenizer_path="t5-base.spiece.model")
    c.train.batch_size = 512
    return c
