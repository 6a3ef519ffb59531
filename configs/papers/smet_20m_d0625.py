"""SMET's 20M model at density 0.0625, at sixteen times the dense rate.

Source: arXiv 2606.00888 (SMET), launch settings of its code. Its rate is what a sparse weight gets: exponent 0 here.
The length is not given with the row, so it is that of base.py; a loss is not given either.

    sparsejax train --config=configs/papers/smet_20m_d0625.py --workdir=runs/smet_20m_d0625
"""

from ml_collections import ConfigDict

from configs.c4 import get_config as c4


def get_config() -> ConfigDict:
    """The published row."""
    c = c4("size=20m,density=0.0625,block=1")
    c.optim.update(lr=3.12e-2, density_exponent=0.0)
    return c
