"""SMET's 20M model, dense.

Source: arXiv 2606.00888 (SMET), launch settings of its code.
The length is not given with the row, so it is that of base.py; a loss is not given either.

    sparsejax train --config=configs/papers/smet_20m_dense.py --workdir=runs/smet_20m_dense
"""

from ml_collections import ConfigDict

from configs.c4 import get_config as c4


def get_config() -> ConfigDict:
    """The published row."""
    c = c4("size=20m,density=1")
    c.optim.update(lr=1.95e-3, density_exponent=0.0)
    return c
