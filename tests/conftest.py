"""Settings every test runs under; they must be in place before jax is imported."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Eight devices on one machine, so that a test of shares or meshes needs no hardware; everything else runs on device 0.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
