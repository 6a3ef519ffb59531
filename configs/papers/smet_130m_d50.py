"""SMET's 130M model at density 0.5.

Source: arXiv 2606.00888 (SMET), launch settings of its code. Its rate is what a sparse weight gets: exponent 0 here.
20,000 steps of 512 rows. Blocks are 128 inputs of one output. A loss is not given with the row.

    sparsejax train --config=configs/papers/smet_130m_d50.py --workdir=runs/smet_130m_d50
"""

from ml_collections import ConfigDict

from configs.c4 import get_config as c4


def get_config() -> ConfigDict:
    """The published row."""
    c = c4("size=130m,density=0.5,block=128x1")
    c.optim.update(lr=2e-3, density_exponent=0.0)
    c.train.steps = 20_000
    return c
