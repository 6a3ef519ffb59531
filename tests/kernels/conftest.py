"""The interpreter of Mosaic GPU became public in jax 0.11; with 0.10 its tests are not collected."""

import jax

collect_ignore = [] if jax.__version_info__ >= (0, 11) else ["gpu_interpreter_test.py"]
