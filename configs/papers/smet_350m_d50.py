"""SMET's 350M model at density 0.5.

Source: arXiv 2606.00888 (SMET), launch settings of its code. Its rate is what a sparse weight gets: exponent 0 here.
60,000 steps of 512 rows. Blocks there are 128 consecutive weights, which do not divide the MLP width of
2736; here they are 16 inputs of one output. A loss is not given with the row.

    sparsejax train --config=configs/papers/smet_350m_d50.py --workdir=runs/smet_350m_d50
"""

from ml_collections import ConfigDict

from configs.c4 import get_config as c4


def get_config() -> ConfigDict:
    """The published row."""
    c = c4("size=350m,density=0.5,block=16x1")
    c.optim.update(lr=2e-3, density_exponent=0.0)
    c.train.steps = 60_000
    return c
