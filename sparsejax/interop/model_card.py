"""The README of an exported model: what it is, how it was trained, what it costs, and how to make it again."""

from __future__ import annotations

import pprint
from collections.abc import Mapping
from typing import Any

from sparsejax.files.text import one_line, printable
from sparsejax.interop.exported_model import TRAIN_CONFIG, ExportedModel

_TAGS = ("sparsejax", "sparse", "block-sparse", "llama")


def model_card(model: ExportedModel, form: str, dtype: str) -> str:
    """The card of a model in a format (``"hf"`` or ``"packed"``): Markdown with a YAML head."""
    facts = model.facts
    sections = (
        _head(facts, form),
        _summary(facts, dtype),
        f"## Use\n\n{_use(form)}",
        f"## Density\n\n{_density(facts)}",
        f"## Training\n\n{_training(facts)}",
        f"## Cost\n\n{_cost(facts, form)}",
        f"## Caveats\n\n{_caveats(facts, form)}",
        f"## Making it again\n\n{_again(facts)}",
    )
    return "\n\n".join(sections) + "\n"


def train_config(facts: Mapping[str, Any]) -> str:
    """The resolved configuration of the run as a file for ``sparsejax train --config``, every field written out."""
    settings = pprint.pformat(dict(facts["config"]), width=118, sort_dicts=False)
    return (
        f'"""Every setting of the run {facts["name"]!r}, as it was resolved."""\n\n'
        "from ml_collections import ConfigDict\n\n"
        f"SETTINGS = {settings}\n\n\n"
        'def get_config() -> ConfigDict:\n    """The settings."""\n    return ConfigDict(SETTINGS)\n'
    )


def _head(facts: Mapping[str, Any], form: str) -> str:
    tags = [*_TAGS, facts["method"]] if facts["density"] < 1 else ["sparsejax", "llama"]
    library = "transformers" if form == "hf" else "sparsejax"
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation", "tags:"]
    return "\n".join([*lines, *(f"- {tag}" for tag in dict.fromkeys(tags)), "---"])


def _summary(facts: Mapping[str, Any], dtype: str) -> str:
    count = facts["parameters"]
    blocks = f"blocks of {facts['block'][0]} x {facts['block'][1]} (in x out)"
    how = {"packed": blocks, "dense_master": "N:M weights", "monarch": "Monarch factors"}[facts["storage"]]
    sparse = facts["density"] < 1
    kind = (
        f"A LLaMA-style decoder trained with the method `{facts['method']}` of "
        f"sparsejax: {how} at density {facts['density']:.4f} of the weights of attention and MLP."
        if sparse
        else "A dense LLaMA-style decoder trained with sparsejax."
    )
    made = f" It is a mean of runs: {_shares(facts['average_of'])}." if facts["average_of"] else ""
    return (
        f"# {one_line(facts['name'])}\n\n{kind}{made} {count['active']:,} of {count['total']:,} parameters are active "
        f"({count['active_non_embedding']:,} active without embedding and head). Tensors are {dtype}."
    )


def _shares(shares: Mapping[str, float]) -> str:
    """The runs that a mean was made of; one that was left out has no share."""
    return ", ".join(f"{share:.3f} of {name}" for name, share in shares.items() if share)


def _use(form: str) -> str:
    if form == "hf":
        return (
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")\n'
            'tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")\n'
            'ids = model.generate(**tokenizer("def main", return_tensors="pt"), max_new_tokens=32)\n'
            "print(tokenizer.decode(ids[0], skip_special_tokens=True))\n```\n\n"
            "`topology.safetensors` (absent from a dense model) holds a block mask `[out / b_out, in / b_in]` of every "
            "sparse weight, under the weight's own name. `sparsejax.json` holds every number of this card."
        )
    return (
        "`model.packed.safetensors` holds active blocks only. Its reader needs NumPy and safetensors:\n\n"
        "```python\nfrom sparsejax.interop.packed import PackedModel\n\n"
        'model = PackedModel("path/to/this/directory/model.packed.safetensors")\n'
        "weights = model.state_dict()  # the dense tensors of a Hugging Face LLaMA\n```\n\n"
        "`sparsejax export --workdir=path/to/this/directory --out=dense --format=hf` writes what `transformers` opens."
    )


def _density(facts: Mapping[str, Any]) -> str:
    lines = [
        "| weight (in x out) | shape | block | active blocks a layer | density | parameters |",
        "|---|---|---|---|---|---|",
    ]
    for kind, row in facts["weights"].items():
        block = "-" if row["block"] is None else f"{row['block'][0]}x{row['block'][1]}"
        active = "all" if row["active"] is None else f"{_span(row['active'])} of {row['places']:,}"
        shape = f"{row['shape'][0]}x{row['shape'][1]}"
        lines.append(f"| {kind} | {shape} | {block} | {active} | {row['density']:.4f} | {row['parameters']:,} |")
    return "\n".join(lines) + "\n\nEmbedding, head and norms are dense and not in the table."


def _span(counts: list[int]) -> str:
    """Equal counts of all layers as one number."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _training(facts: Mapping[str, Any]) -> str:
    data, tokens, losses, config = facts["data"], facts["tokens"], facts["losses"], facts["config"]
    state = "finished" if facts["finished"] else "not finished"
    rows = [
        ("step", f"{facts['step']:,} of {facts['steps']:,} ({state})"),
        ("started from", config["init"]["from"] or "a random draw"),
        ("text", f"source `{data['source']}` {printable(data['path'])}".rstrip()),
        ("digest of the tokens", f"`{data['digest']}`"),
        ("tokenizer", f"{data['tokenizer']}, digest `{data['tokenizer_digest']}`"),
        ("tokens seen" + (" by each run" if facts["average_of"] else ""), f"{tokens['seen']:,}"),
        ("unique tokens", "all of the corpus" if tokens["unique"] is None else f"{tokens['unique']:,}"),
        ("epochs", _number(tokens["epochs"], ".3f")),
        ("tokens of a row, rows of a step", f"{data['sequence_length']}, {config['train']['batch_size']}"),
        ("peak learning rate, schedule", f"{config['optim']['lr']:g}, {config['optim']['schedule']}"),
        ("training loss, last interval (nats/token)", _number(losses["train"], ".4f")),
        (f"validation loss at step {_number(losses['step'], ',')} (nats/token)", _number(losses["validation"], ".4f")),
        ("validation, bits per byte", _number(losses["bits_per_byte"], ".4f")),
        ("seeds (init, topology, data)", ", ".join(str(seed) for seed in config["seeds"].values())),
        ("trained on", facts["device"] or "unknown"),
    ]
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _cost(facts: Mapping[str, Any], form: str) -> str:
    token, training = facts["flops_per_token"], facts["training_flops"]
    rows = [
        ("forward pass, a token: what active weights need (theoretical)", _number(token["theoretical"], ".4g")),
        ("forward pass, a token: the dense model of this shape", _number(token["dense"], ".4g")),
        ("whole training: executed", _number(training["executed"], ".4g")),
        ("whole training: theoretical", _number(training["theoretical"], ".4g")),
    ]
    table = "| FLOPs | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in rows)
    executes = "In `transformers` the dense row is what is executed." if form == "hf" else ""
    length = facts["data"]["sequence_length"]
    return f"{table}\n\nAttention is counted as the full square at {length} tokens. {executes}".rstrip()


def _caveats(facts: Mapping[str, Any], form: str) -> str:
    lines = []
    if form == "hf" and facts["density"] < 1 and facts["storage"] != "monarch":
        lines.append(
            "- Weights outside active blocks are stored as zeros, so `transformers` needs the memory and the time of "
            "the dense model. Density saves both only where active blocks are stored and multiplied: in sparsejax."
        )
    if facts["storage"] == "monarch":
        lines.append(
            "- The two Monarch factors of a weight were multiplied: the matrix is full, and larger than they are."
        )
    if facts["storage"] == "dense_master":
        lines.append("- N:M weights are stored as zeros among others; no N:M kernel is used by loading them.")
    lines += [
        "- Trained on the text named above and nothing else: no instructions, no filtering for safety.",
        f"- Positions beyond {facts['data']['sequence_length']} tokens were never trained.",
        "- Losses are of one run on its own validation split; they say nothing of other text.",
    ]
    lines.append("- No licence is named; choose one before this is published, and mind that of the text.")
    if facts["exported_weights"] == "ema":
        decay = facts["config"]["optim"]["ema_decay"]
        lines.append(
            f"- These are the moving average of the weights (decay {decay:g}); the losses are of the last ones."
        )
    if not facts["finished"]:
        lines.append("- The run had not written its result when this step was exported; the loss may still fall.")
    return "\n".join(lines)


def _again(facts: Mapping[str, Any]) -> str:
    by = facts["exported_by"]
    trained, exported = ", ".join(f"`{commit}`" for commit in facts["trained_by"]["git_commits"]), by["git_commit"]
    commit = f" (trained at commit {trained})" if trained else ""
    commit += f" (exported at commit `{exported}`)" if exported else ""
    versions = facts["versions"] or {}
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    first = (
        "This model is a mean of runs: train each of them, then `sparsejax average`."
        if facts["average_of"]
        else "Equal settings, text and versions give equal weights on the same kind and number of devices."
    )
    return (
        f"{first} `{TRAIN_CONFIG}` holds every setting of the run.\n\n"
        f"```\nsparsejax train --config={TRAIN_CONFIG} --workdir=runs/{facts['name']}\n"
        f"sparsejax export --workdir=runs/{facts['name']} --out=export\n```\n\n"
        f"sparsejax {by['sparsejax']}{commit}" + (f"; trained with {told}." if told else ".")
    )
