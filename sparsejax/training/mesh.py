"""The mesh of a run: which device does what, settled and checked before anything compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from sparsejax.config import ConfigError, MeshConfig, RunConfig
from sparsejax.models.parallel import AXES, Parallel
from sparsejax.models.weight_table import mlp_width


def settle_mesh(run: RunConfig, devices: int) -> RunConfig:
    """The run with the mesh that it has on so many devices: ``mesh.fsdp=0`` becomes all that the other axes leave.

    Args:
      run: the resolved configuration.
      devices: how many there are, on all hosts together.

    Raises:
      ConfigError: the mesh does not fit the devices, or does not divide the batch, the model or its shares.
    """
    mesh = run.mesh
    others = mesh.replica * mesh.tensor
    if mesh.fsdp == 0:
        if devices % others:
            raise ConfigError(
                f"mesh.replica={mesh.replica}, mesh.tensor={mesh.tensor}: their product {others} does not divide "
                f"the {devices} devices; legal products: {divisors(devices)}"
            )
        mesh = dataclasses.replace(mesh, fsdp=devices // others)
    if others * mesh.fsdp > devices:
        raise ConfigError(
            f"mesh.fsdp={mesh.fsdp}: {mesh.replica} x {mesh.fsdp} x {mesh.tensor} (replica x fsdp x tensor) is "
            f"{others * mesh.fsdp} devices, and there are {devices}; mesh.fsdp=0 takes what the other axes leave"
        )
    settled = dataclasses.replace(run, mesh=mesh)
    for problem in _problems(settled):
        raise ConfigError(problem)
    return settled


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device]) -> Mesh:
    """The mesh of a settled configuration over the first of ``devices``; axes ``replica``, ``fsdp``, ``tensor``.

    On TPUs neighbours along an axis are neighbours in the network. Where several slices are joined by a slower network
    (``Device.slice_index``), the replica axis goes over them, outermost.

    Raises:
      ConfigError: there are too few devices, or the slices do not divide the replica axis.
    """
    shape = (config.replica, config.fsdp, config.tensor)
    wanted = config.replica * config.fsdp * config.tensor
    if wanted < 1 or wanted > len(devices):
        raise ConfigError(f"mesh={shape}: needs {wanted} devices, and there are {len(devices)}")
    chosen = list(devices)[:wanted]
    grid = np.array(chosen).reshape(shape)
    if wanted > 1 and chosen[0].platform == "tpu":
        slices = len({device.slice_index for device in chosen if hasattr(device, "slice_index")})
        if slices > 1:
            if config.replica % slices:
                raise ConfigError(
                    f"mesh.replica={config.replica}: must be a multiple of the {slices} slices, which only the "
                    "replica axis can span"
                )
            inner = (config.replica // slices, config.fsdp, config.tensor)
            grid = mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), chosen)
        else:
            grid = mesh_utils.create_device_mesh(shape, chosen, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def parallel_of(config: MeshConfig) -> Parallel:
    """The mesh as the model sees it."""
    return Parallel(config.replica, config.fsdp, config.tensor, config.sequence)


def divisors(number: int) -> list[int]:
    """All of them, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def _problems(run: RunConfig) -> list[str]:
    """What a mesh has to divide, one line each."""
    model, mesh, train = run.model, run.mesh, run.train
    data, stored = mesh.replica * mesh.fsdp, mesh.fsdp * mesh.tensor
    problems = []

    def must_divide(field: str, size: int, name: str, number: int) -> None:
        if number % size:
            legal = [d for d in divisors(number) if d <= 1024]
            problems.append(f"{field}={size}: must divide {name}={number}; legal: {legal}")

    must_divide("mesh.replica*fsdp", data, "train.batch_size", train.batch_size)
    must_divide("mesh.fsdp*tensor", stored, "model.hidden", model.hidden)
    must_divide("mesh.tensor", mesh.tensor, "model.heads", model.heads)
    must_divide("mesh.tensor", mesh.tensor, "model.kv_heads", model.kv_heads)
    must_divide("mesh.tensor", mesh.tensor, "data.sequence_length", run.data.sequence_length)
    must_divide("mesh.tensor", mesh.tensor, "the MLP width", mlp_width(model, run.topology))
    if not problems and (train.batch_size // data) % train.microbatches:
        problems.append(
            f"train.microbatches={train.microbatches}: must divide the {train.batch_size // data} rows that each of "
            f"{data} parts of the batch has (mesh.replica x mesh.fsdp); legal: {divisors(train.batch_size // data)}"
        )
    topology = run.topology
    if topology.storage == "packed" and (topology.density < 1.0 or topology.rules):
        must_divide("mesh.tensor", mesh.tensor, "topology.shards", topology.shards)
    if topology.storage == "monarch" and stored > 1:
        problems.append(
            f"mesh.fsdp={mesh.fsdp}, mesh.tensor={mesh.tensor}: Monarch factors are not cut; use mesh.fsdp=1, "
            "mesh.tensor=1 and as many replicas as there are devices"
        )
    if topology.storage == "dense_master":
        group = topology.nm[1]
        must_divide("mesh.tensor*nm", mesh.tensor * group, "model.heads*head_dim", model.heads * model.head_dim)
        must_divide("mesh.tensor*nm", mesh.tensor * group, "the MLP width", mlp_width(model, topology))
    return problems
