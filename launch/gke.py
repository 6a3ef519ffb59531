"""Train on TPUs of a GKE cluster: ``python -m launch.gke manifest`` or ``xpk`` prints what to give to the cluster.

``manifest`` prints a JobSet for ``kubectl apply -f -``, ``xpk`` the command that makes the same through xpk. Both start
again what was preempted, and stop at once on bad input, a model that does not fit, or a diverged loss. The image holds
the checkout: launch/Dockerfile builds it.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from launch import job
from launch.exit_codes import FINAL, FINISHED, LOST_PEER, PREEMPTED, LaunchError, answer
from launch.flags import Parser, slices, whole_number
from launch.job import Job
from launch.shell import settle_output, shown
from launch.slices import CHIPS_PER_POD, GENERATIONS, Slice, parse_slice

KINDS = {"manifest": "print a JobSet in YAML", "xpk": "print a command of xpk"}
_CONTAINER = "train"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
# Seconds between SIGTERM and SIGKILL. Spot nodes are gone after about 15, whatever is asked for here.
_GRACE = 300


def main(argv: Sequence[str] | None = None) -> int:
    """Print one of the two; returns an exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    settle_output()
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            text = "\n".join(f"  {name:<9} {what}" for name, what in KINDS.items())
            print(f"usage: python -m launch.gke <kind> [flags] [-- flags of the trainer]\n\nkinds:\n{text}")
            return FINISHED
        kind, *rest = arguments
        if kind not in KINDS:
            raise LaunchError(f"{kind}: no such kind; there are {', '.join(KINDS)}")
        split = rest.index("--") if "--" in rest else len(rest)
        flags = _parser(kind).parse_args(rest[:split])
        print(_text(kind, flags, rest[split + 1 :]))
    except (LaunchError, OSError) as error:
        return answer(error)
    return FINISHED


def jobset(
    name: str, image: str, todo: Job, hardware: Slice, num_slices: int, retries: int, spot: bool
) -> dict[str, Any]:
    """A JobSet with one Job a slice and one pod a host."""
    labels = {
        "cloud.google.com/gke-tpu-accelerator": GENERATIONS[hardware.generation].gke_label,
        "cloud.google.com/gke-tpu-topology": hardware.shape,
    }
    if spot:
        labels["cloud.google.com/gke-spot"] = "true"
    chips = {"google.com/tpu": min(CHIPS_PER_POD, hardware.chips)}
    container = {
        "name": _CONTAINER,
        "image": image,
        "command": worker_command(todo),
        "env": [{"name": "JAX_COMPILATION_CACHE_DIR", "value": todo.compile_cache}],
        # Where the processes of a slice, and the slices, find each other.
        "ports": [{"containerPort": port} for port in (8471, 8080)],
        "resources": {"requests": chips, "limits": chips},
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "nodeSelector": labels,
        "containers": [container],
    }
    if spot:
        pod["tolerations"] = [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}]
    # A pod that ends in a way that another try would repeat fails its Job for that reason, and so the JobSet.
    final = {"containerName": _CONTAINER, "operator": "In", "values": list(FINAL)}
    slices = {
        "parallelism": hardware.pods,
        "completions": hardware.pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": final}]},
        "template": {"spec": pod},
    }
    stop = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            # All pods of a slice on one slice, and nobody else's.
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": retries, "rules": [stop]},
            "replicatedJobs": [{"name": "slice", "replicas": num_slices, "template": {"spec": slices}}],
        },
    }


def xpk(
    name: str, image: str, todo: Job, hardware: Slice, num_slices: int, retries: int, flags: Sequence[str]
) -> list[str]:
    """The command ``xpk workload create`` of the same; ``flags``: the cluster, its project and zone, the capacity."""
    return [
        "xpk",
        "workload",
        "create",
        f"--workload={name}",
        *flags,
        f"--tpu-type={hardware.accelerator_type}",
        f"--num-slices={num_slices}",
        f"--docker-image={image}",
        f"--max-restarts={retries}",
        f"--restart-on-exit-codes={PREEMPTED},{LOST_PEER}",
        f"--termination-grace-period-seconds={_GRACE}",
        f"--env=JAX_COMPILATION_CACHE_DIR={todo.compile_cache}",
        f"--command={shlex.join(worker_command(todo))}",
    ]


def worker_command(todo: Job) -> list[str]:
    """What every pod runs, in the checkout."""
    return ["bash", "launch/run_tpu.sh", *job.train_flags(todo, distributed=True)]


def to_yaml(value: Any, indent: int = 0) -> str:
    """A tree of dicts and lists as YAML in blocks; scalars and lists of scalars as JSON, which YAML contains."""
    pad = " " * indent
    if not _is_block(value):
        return pad + json.dumps(value)
    if isinstance(value, Mapping):
        return "\n".join(f"{pad}{key}:{_nested(child, indent + 2)}" for key, child in value.items())
    blocks = [to_yaml(child, indent + 2) for child in value]
    return "\n".join(f"{pad}- {block[indent + 2 :]}" for block in blocks)


def _nested(value: Any, indent: int) -> str:
    return f"\n{to_yaml(value, indent)}" if _is_block(value) else f" {json.dumps(value)}"


def _is_block(value: Any) -> bool:
    return bool(value) and (isinstance(value, Mapping) or (isinstance(value, list) and isinstance(value[0], Mapping)))


def _parser(kind: str) -> Parser:
    parser = Parser(f"launch.gke {kind}", KINDS[kind])
    parser.add_argument("--name", required=True, help="of the job")
    parser.add_argument("--image", required=True, help="built from launch/Dockerfile")
    parser.add_argument("--hardware", required=True, help="one slice, as 'sparsejax check' takes it: v5p:4x4x4")
    parser.add_argument("--num-slices", type=slices, default=1, help="slices, which mesh.replica spans")
    parser.add_argument("--spot", action="store_true", help="on spot nodes")
    parser.add_argument("--retries", type=whole_number, default=10, help="how often to start again")
    parser.add_argument("--config", required=True, help="configs/<file>.py[:key=value,...]")
    parser.add_argument("--workdir", required=True, help="run directory, gs://bucket/run")
    parser.add_argument("--shared-workdir", action="store_true", help="the path of --workdir is mounted in all pods")
    parser.add_argument("--compile-cache", default="", help="directory of compiled programs; <workdir>/compile_cache")
    if kind == "xpk":
        parser.add_argument("--cluster", required=True, help="name of the GKE cluster")
        parser.add_argument("--zone", default="", help="of the cluster")
        parser.add_argument("--project", default="", help="of the cluster")
    return parser


def _text(kind: str, flags: argparse.Namespace, rest: Sequence[str]) -> str:
    if not _NAME.fullmatch(flags.name):
        raise LaunchError(
            f"--name={flags.name}: write at most 40 lower-case letters, digits and hyphens, a letter first"
        )
    hardware = parse_slice(flags.hardware)
    # A pod that is started again may be on another machine.
    job.check_workdir(flags.workdir, many_hosts=True, survives=False, shared=flags.shared_workdir)
    todo = job.make_job(flags.config, flags.workdir, rest, flags.compile_cache)
    if kind == "manifest":
        made = jobset(flags.name, flags.image, todo, hardware, flags.num_slices, flags.retries, flags.spot)
        return to_yaml(made)
    where = [
        f"--{name}={value}" for name, value in vars(flags).items() if name in ("cluster", "zone", "project") and value
    ]
    where += ["--spot"] if flags.spot else []
    return shown(xpk(flags.name, flags.image, todo, hardware, flags.num_slices, flags.retries, where))


if __name__ == "__main__":
    sys.exit(main())
