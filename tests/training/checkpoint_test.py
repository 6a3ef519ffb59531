import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.training.checkpoint import Checkpoints, state_digest
from sparsejax.training.sharding import on_first_device
from sparsejax.training.state import TrainState

CONFIG = {"optim": {"lr": 0.1}}


def state_at(step):
    return TrainState(
        step=jnp.int32(step),
        params={"w": jnp.arange(4096.0) + step},
        topology={"rows": jnp.arange(3)},
        opt_state=({"mu": jnp.full((5,), step, jnp.bfloat16)}, ()),
        skipped=jnp.int32(1),
        skipped_in_row=jnp.int32(0),
        explored={"q": jnp.full((7,), step, jnp.uint8)},
        scores={},
    )


ABSTRACT = on_first_device(jax.eval_shape(lambda: state_at(0)))


def open_checkpoints(workdir, notices, keep_last=2, keep_every=0):
    return Checkpoints(workdir, keep_last=keep_last, keep_every=keep_every, notice=notices.append)


def saved(workdir, steps, **keep):
    with open_checkpoints(workdir, [], **keep) as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step), CONFIG)
            checkpoints.wait()


def test_everything_comes_back_bit_for_bit(tmp_path):
    saved(tmp_path, [3])
    with open_checkpoints(tmp_path, []) as checkpoints:
        found = checkpoints.restore(lambda _: ABSTRACT)
        assert checkpoints.config_of(3) == CONFIG
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state_at(3)), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def test_a_new_run_has_none(tmp_path):
    with open_checkpoints(tmp_path, []) as checkpoints:
        assert checkpoints.restore(lambda _: ABSTRACT) is None
        assert checkpoints.steps == []


def test_the_last_n_and_every_m_th_stay(tmp_path):
    saved(tmp_path, [2, 4, 6, 8, 10], keep_last=2, keep_every=4)
    with open_checkpoints(tmp_path, []) as checkpoints:
        assert checkpoints.steps == [4, 8, 10]


def test_a_reader_touches_nothing(tmp_path):
    saved(tmp_path, [1, 2])
    shutil.rmtree(tmp_path / "checkpoints" / "2" / "state")
    unfinished = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    notices: list[str] = []
    keep = {"keep_last": 2, "keep_every": 0}
    with Checkpoints(tmp_path, **keep, notice=notices.append, owner=False) as checkpoints:
        assert int(checkpoints.restore(lambda _: ABSTRACT).step) == 1
    assert (tmp_path / "checkpoints" / "2").is_dir() and unfinished.is_dir()
    assert not (tmp_path / "checkpoints-broken").exists()
    assert len(notices) == 1


def test_the_digest_sees_any_single_bit():
    state = state_at(3)
    digest = int(state_digest(state))
    flipped = np.asarray(state.params["w"]).copy()
    flipped.view(np.uint32)[17] ^= 1
    assert int(state_digest(state.__class__(**{**vars(state), "params": {"w": jnp.asarray(flipped)}}))) != digest
    assert int(state_digest(state_at(3))) == digest


def test_a_relative_directory_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(Path("run"), [1])
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()
