"""A LLaMA of a published size on C4 with T5's tokenizer, as both papers train: the base of all of configs/papers/.

    sparsejax train --config=configs/c4.py:size=60m,density=0.25 --workdir=runs/c4-60m

Arguments are those of llama.py. The text is read with the library `datasets` (pip install 'sparsejax[hf]'). T5's
tokenizer, 32,000 pieces, is the file `t5-base.spiece.model` in the working directory, or the one that
--config.data.tokenizer_path names. Batches are the 512 rows of 256 tokens of SMET's launch files.
"""

from ml_collections import ConfigDict

from configs.llama import get_config as llama


def get_config(arguments: str) -> ConfigDict:
    """The config of llama.py with the papers' text, tokenizer and batch; raises ``ConfigError``."""
    c = llama(arguments)
    c.data.update(source="hf", path="allenai/c4:en@train", validation_path="allenai/c4:en@validation")
    c.data.update(tokenizer="sentencepiece", tokenizer_path="t5-base.spiece.model", sequence_length=256)
    c.train.batch_size = 512
    return c
