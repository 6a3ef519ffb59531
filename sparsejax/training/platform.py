"""Starting the platform that JAX runs on, which may not be there."""

from __future__ import annotations

import os

from sparsejax.config import ConfigError


def start_platform() -> None:
    """Make JAX find its devices.

    Raises:
      ConfigError: it finds none: ``JAX_PLATFORMS`` names what this machine or this installation does not have, or
        another process holds the devices.
    """
    import jax

    try:
        jax.devices()
    # Plugins raise what they like, one of them an AssertionError without a word.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if os.environ.get("JAX_PLATFORMS"):
            name = os.environ["JAX_PLATFORMS"]
            raise ConfigError(
                f"JAX_PLATFORMS={name}: jax cannot start that here ({reason}); name a platform of this machine and of "
                "the installed jax, such as JAX_PLATFORMS=cpu"
            ) from error
        raise ConfigError(f"jax cannot start a device here ({reason}); JAX_PLATFORMS=cpu takes the CPU") from error
