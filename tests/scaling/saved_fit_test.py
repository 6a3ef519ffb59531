"""``fit.json``: those of earlier versions still open, kinds of residuals are kept, and what is no fit is one line."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.scaling import runs, saved_fit
from sparsejax.scaling.fit import fit
from sparsejax.scaling.fit_report import Certainty, Term, document, report_lines, residual_plot
from sparsejax.scaling.intervals import bootstrap, centred, profile
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.studies import study
from tests.scaling.synthetic import drawn

GOLDEN = Path(__file__).parents[1] / "golden" / "scaling"
ASKED = {"staged": False, "starts": 16, "samples": 32, "level": 0.9, "seed": 0, "command": "a test"}


def test_files_of_the_first_version_still_open():
    known, document = saved_fit.read(GOLDEN / "fit.json"), json.loads((GOLDEN / "fit.json").read_text())
    assert known.law is LAWS["chinchilla"] and dict(known.values) == document["values"]
    assert known.count == 100 and known.sample(99)["beta"] == document["samples"]["beta"][99]
    assert (known.noise, known.ranges["N"]) == (document["scale"], tuple(document["ranges"]["N"]))
    assert (known.convention, known.tokens_in, known.tokenizer, known.text) == ("total", "tokens", "", "")
    result = runs.read(GOLDEN / "result.json")
    fields = dataclasses.asdict(result) | {"block": list(result.block)}
    assert fields == json.loads((GOLDEN / "result.json").read_text())


WRONG = [
    ({"schema": 2}, "no fit of schema 1"),
    ({"schema": ...}, "no fit of schema 1"),
    *(({name: ...}, name) for name in ("law", "values", "samples", "scale", "ranges", "convention", "runs", "source")),
    *(({name: value}, name) for name in ("values", "samples", "ranges") for value in (None, 3, [1], "a")),
    ({"values": {"E": "x"}}, "E=x is not finite"),
    *(({"scale": value}, "scale") for value in (None, "x", -1.0, [])),
    ({"law": "kaplan"}, "law=kaplan: unknown"),
    ({"convention": "weights"}, "convention=weights"),
    ({"residual": "cubic"}, "residual"),
    ({"values": {"E": 1.7}}, "has no 'A'"),
    ({"values": {name: "inf" for name in ["E", "A", "B", "alpha", "beta"]}}, "E=inf is not finite"),
    ({"samples": {"E": [1.7]}}, "samples are not those of every parameter"),
    ({"ranges": {"N": [3.0, 1.0]}}, "ranges: N"),
]


@pytest.mark.parametrize(("values", "match"), WRONG)
def test_what_is_no_fit_is_one_line(tmp_path, values, match):
    found = json.loads((GOLDEN / "fit.json").read_text()) | values
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not ...}))
    with pytest.raises(ConfigError, match=match) as caught:
        saved_fit.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def told(found):
    """Everything that was read, to the last digit."""
    if isinstance(found, runs.RunResult):
        return repr(found)
    samples = {name: values.tolist() for name, values in found.samples.items()}
    return repr((found.values, samples, found.noise, found.ranges, found.convention, found.law.residual))


def test_one_changed_bit_is_found(tmp_path):
    rng = np.random.default_rng(0)
    document = json.loads((GOLDEN / "fit.json").read_text())
    runs.write(runs.read(GOLDEN / "result.json"), tmp_path / "result.json")
    (tmp_path / "fit.json").write_text(saved_fit.json_text(document))
    assert saved_fit.read(tmp_path / "fit.json").values == document["values"]
    for name, read in (("fit.json", saved_fit.read), ("result.json", runs.read)):
        path = tmp_path / name
        content = path.read_bytes()
        wanted = told(read(path))
        for place in rng.integers(0, len(content), 150).tolist():
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            try:
                assert told(read(path)) == wanted
            except ConfigError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"nan"])
def test_what_is_no_json_is_one_line(tmp_path, data):
    path = tmp_path / "fit.json"
    for missing in (False, True):
        if not missing:
            path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"fit\.json: ") as caught:
            saved_fit.read(path)
        assert "\n" not in str(caught.value)
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "residual"),
    [
        ("chinchilla", "linear"),
        pytest.param("chinchilla", "log", marks=pytest.mark.slow),
        pytest.param("vocabulary", "linear", marks=pytest.mark.slow),
    ],
)
def test_the_kind_of_residuals_is_kept_and_named(tmp_path, name, residual):
    law = LAWS[name] if LAWS[name].residual == residual else dataclasses.replace(LAWS[name], residual=residual)
    found = study([law], drawn(law, noise=0.02), fixed={}, free_held=(), delta=None, **ASKED)
    # The noise is of what residuals compare, and so is the scale.
    assert found.fit.scale == pytest.approx(0.02, rel=0.5)
    path = tmp_path / "fit.json"
    path.write_text(saved_fit.json_text(document(found)))
    known = saved_fit.read(path)
    assert known.law.residual == residual and (known.law is LAWS[name]) == (law is LAWS[name])
    report = "\n".join(report_lines(found))
    unit = "log loss" if residual == "log" else "nats/token"
    assert f"| robust scale of the residuals, {unit} | {found.fit.scale:.4f} |" in report
    left_out = next(line for line in report.splitlines() if "left out: 5 folds" in line)
    assert ("%" in left_out) == (residual == "log") and ("nats/token" in left_out) == (residual == "linear")
    (folds,) = [one for one in found.held_out if one.split == "5 folds"]
    assert folds.error == pytest.approx(0.02, rel=0.6)
    assert residual_plot(found.fit)[:4] == b"\x89PNG"
    other = LAWS["chinchilla" if residual == "linear" else "vocabulary"]
    with pytest.raises(ConfigError, match=rf"--against={other.name}: has residuals in"):
        study([law, other], drawn(law), fixed={}, free_held=(), delta=None, **ASKED)


def test_a_verdict_does_not_follow_units():
    law = LAWS["chinchilla"]
    table = drawn(law, noise=0.03)
    billions = dataclasses.replace(table, columns={**table.columns, "D": table.columns["D"] / 1e9})
    found = [fit(law, runs, starts=16) for runs in (table, billions)]
    # The coefficient by itself would be known in one unit and not in the other.
    raw = [profile(one, "B") for one in found]
    assert [interval.identified for interval in raw] == [False, True]
    terms = [profile(one, "B", term=True) for one in found]
    np.testing.assert_allclose(*map(dataclasses.astuple, terms), rtol=0.01)
    samples = [bootstrap(one, 16).interval("B", 0.9, term=True) for one in found]
    np.testing.assert_allclose(*map(dataclasses.astuple, samples), rtol=0.01)
    certainty = Certainty(raw[0], raw[0], Term({"D": 1.0}, 1.0, samples[0], terms[0]))
    assert certainty.together.identified and not Certainty(raw[0], raw[0]).together.identified
    middle = np.exp(np.mean(np.log(table.columns["D"])))
    value = found[0].values["B"] * middle ** -found[0].values["beta"]
    assert np.exp(centred(found[0], "B", found[0].z)) == pytest.approx(value, rel=1e-9)
    assert terms[0].low < value < terms[0].high
