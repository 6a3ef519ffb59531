"""SMET's 1B model at density 0.3.

Source: arXiv 2606.00888 (SMET), launch settings of its code. Its rate is what a sparse weight gets: exponent 0 here.
The length is not given with the row, so it is that of base.py; a loss is not given either.

    sparsejax train --config=configs/papers/smet_1b_d30.py --workdir=runs/smet_1b_d30
"""

from ml_collections import ConfigDict

from configs.c4 import get_config as c4


def get_config() -> ConfigDict:
    """The published row."""
    c = c4("size=1b,density=0.3,block=1")
    c.optim.update(lr=2e-3, density_exponent=0.0)
    return c
