"""Make the golden files of ``parity_test.py``; needs torch and transformers (docs/EXPORT.md, section Parity).

    python -m tests.interop.transformers_golden

``tests/golden/interop/<case>/`` is a random model as ``transformers`` saved it, and ``logits.npz`` with tokens and its
logits. ``tests/golden/interop/export/`` is our export of a run, and what ``transformers`` makes of it: logits, and the
ids of texts.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from sparsejax.interop.export import export
from sparsejax.interop.hf_tokenizer import PROBES, SPELLED
from tests.interop.transformers_models import CASES, TOKENS, logits_there, save_random_model
from tests.interop.untrained import write_run

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop"
EXPORT_TOKENS = (np.arange(32).reshape(2, 16) * 37) % 257


def main() -> None:
    """Replace all golden files."""
    from transformers import AutoTokenizer

    shutil.rmtree(GOLDEN, ignore_errors=True)
    for case in CASES:
        save_random_model(GOLDEN / case, case)
        (GOLDEN / case / "generation_config.json").unlink(missing_ok=True)
        np.savez_compressed(GOLDEN / case / "logits.npz", tokens=TOKENS, logits=logits_there(GOLDEN / case, TOKENS))
    with tempfile.TemporaryDirectory() as folder:
        # Relative paths, because the settings of a run are part of its export.
        before = Path.cwd()
        os.chdir(folder)
        Path("golden").mkdir()
        workdir, _ = write_run(Path("golden"), model_kv_heads=1, topology_rules=(r"mlp\.down=1.0",))
        export(workdir, GOLDEN / "export", form="hf", dtype=None, shard_bytes=10**9, notice=print)
        os.chdir(before)
    # Its wording may change; tests/interop/model_card_test.py looks at it.
    (GOLDEN / "export" / "README.md").unlink()
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "export")
    ids = {text: tokenizer(text).input_ids for text in (*PROBES, SPELLED)}
    seen = GOLDEN / "export-in-transformers"
    seen.mkdir()
    (seen / "ids.json").write_text(json.dumps(ids, indent=1) + "\n")
    logits = logits_there(GOLDEN / "export", EXPORT_TOKENS)
    np.savez_compressed(seen / "logits.npz", tokens=EXPORT_TOKENS, logits=logits)


if __name__ == "__main__":
    main()
