"""A platform that is not there is one line of every command."""

import os
import subprocess
import sys

import pytest

# A command that asks jax for devices, as all do sooner or later, through libraries that have words of their own for it.
CODE = """
import sys
from sparsejax.cli import advise, main

def asks_for_devices(argv):
    import jax
    jax.numpy.zeros(3)

advise.main = asks_for_devices
sys.exit(main.main(["advise"]))
"""


@pytest.mark.parametrize("platform", ["cuda", "nothing,cpu9"])
def test_a_platform_that_is_not_there_is_one_line(platform):
    settings = os.environ | {"JAX_PLATFORMS": platform}
    done = subprocess.run([sys.executable, "-c", CODE], env=settings, capture_output=True, text=True, timeout=100)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert last.startswith(f"sparsejax: JAX_PLATFORMS={platform}: jax cannot start that here (")
