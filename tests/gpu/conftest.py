"""Tests that need a Hopper GPU: ``make test-gpu``, or ``python -m pytest --confcutdir=tests/gpu tests/gpu``.

They need jax with CUDA, absl-py (which Mosaic GPU imports), numpy and pytest, nothing else of this project's
dependencies. The gate does not collect them, and its settings (tests/conftest.py), which hide every accelerator, do not
reach them.
"""

from __future__ import annotations

import jax
import pytest

from sparsejax.hardware.target import target_of
from sparsejax.kernels.pallas_gpu import CHIPS


@pytest.fixture(scope="session")
def name() -> str:
    """The implementation for the GPU that is here."""
    device = jax.devices()[0]
    chip = target_of(device).chip
    if chip not in CHIPS:
        raise RuntimeError(f"tests/gpu needs one of {', '.join(CHIPS)}; the first device is {device.device_kind}")
    return f"pallas_gpu@{chip}"
