"""The fixtures of ONNX files: each family's tiny checkpoint by every exporter, optimiser and quantiser, and what ONNX Runtime answers.

usage: python3 scripts/goldens/onnx_models.py [FAMILY...]

For each family: the graphs, `weights.bin` (the tensors of all of them), `cases.json` and `outputs.safetensors`. Makes its own
environment in .venv-onnx beside this file. An exporter that fails has to fail as `onnx_cases.FAILS` says.
"""

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parents[1] / "crates" / "testkit" / "fixtures" / "onnx"
sys.path.insert(0, str(HERE.parent))

import environment  # noqa: E402

MOST_BYTES = 2_000_000
# How far ONNX Runtime in f32 may be from PyTorch.
TOLERANCE = 1e-4


def main() -> None:
    environment.enter(HERE / "requirements-onnx.txt", HERE / ".venv-onnx")
    import onnx_cases

    only = sys.argv[1:]
    for family, variants in onnx_cases.families().items():
        if not only or family in only:
            _write_family(family, variants, FIXTURES / family)


def _write_family(family: str, variants: list, folder: Path) -> None:
    from safetensors.torch import save_file

    import onnx_cases
    import onnx_store
    import readable

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pool, cases, outputs, asked = onnx_store.Pool(), [], {}, {}
    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        workshop = onnx_cases.Workshop(family, Path(scratch))
        for variant in variants:
            known = onnx_cases.FAILS.get((family, variant.name))
            try:
                case, answer = _make(workshop, variant, folder, pool)
            except Exception as error:
                (folder / f"{variant.name}.onnx").unlink(missing_ok=True)
                if known and known in str(error):
                    print(f"  {family} {variant.name}: fails as known, {known}")
                    continue
                problems.append(f"{family} {variant.name}: {type(error).__name__}: {str(error)[:900]}")
                print("  " + problems[-1])
                continue
            if known:
                problems.append(f"{family} {variant.name} is known to fail, and did not")
            source = workshop.source(variant)
            asked |= dict(zip(source.places, source.inputs, strict=True))
            cases.append(case)
            outputs[variant.name] = answer.clone().contiguous()
    assert not problems, "\n".join(problems)
    order = sorted(asked)
    for case in cases:
        case["inputs"] = [order.index(place) for place in case["inputs"]]
    readable.write(folder / "cases.json", {"inputs": [asked[place] for place in order], "cases": cases})
    save_file(outputs, folder / "outputs.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    written = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{family}: {len(cases)} cases, {written} bytes")
    assert written <= MOST_BYTES, "too large to commit"


def _make(workshop, variant, folder: Path, pool):
    """Makes and stores one file; its entry of `cases.json`, and what ONNX Runtime answers."""
    import onnx_source
    import onnx_store

    model = onnx_store.load(workshop.make(variant))
    path = folder / f"{variant.name}.onnx"
    onnx_store.store(model, path, None if variant.inline else pool, variant.inline)
    (folder / onnx_store.WEIGHTS).write_bytes(pool.bytes)
    answer, apart = _answer(path, workshop, variant)
    source, kind = workshop.source(variant), workshop.kind(variant)
    case = {
        "name": variant.name, "file": path.name, "made_by": variant.made_by,
        "opset": next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "of": variant.case, "kind": kind, "outputs": onnx_source.OUTPUTS[kind], "inputs": source.places, "config": source.config,
        "counts": workshop.counts(variant), "activations": variant.activations, "from_pytorch": float(f"{apart:.2g}"),
        "operators": " ".join(sorted({node.domain + ":" * bool(node.domain) + node.op_type for node in model.graph.node})),
    }  # fmt: skip
    print(f"  {workshop.family} {variant.name}: {path.stat().st_size} bytes, {apart:.1e} from PyTorch")
    return case, answer


def _answer(path: Path, workshop, variant):
    """What ONNX Runtime answers for each input alone, and how far that is from PyTorch in f32."""
    import onnx

    import onnx_source

    source, kind = workshop.source(variant), workshop.kind(variant)
    arguments = [value.name for value in onnx.load(path, load_external_data=False).graph.input]
    expected = workshop.expected(variant, arguments)
    try:
        answer = _run(path, source, kind, [[item] for item in source.inputs])
    except Exception as error:
        if variant.unrunnable and variant.unrunnable in str(error):
            return expected, 0.0
        raise
    assert not variant.unrunnable, f"{path.name} is known not to run, and did"
    assert answer.shape == expected.shape, f"{path.name}: {answer.shape} instead of {expected.shape}"
    apart = ((answer - expected).abs() / (1 + expected.abs())).max().item()
    if variant.activations == "f32" and not variant.changed:
        assert apart < TOLERANCE, f"{path.name}: {apart} from PyTorch"
        together = [item for item in source.inputs if kind != "logits" or onnx_source.may_be_padded(source, item)]
        alone = _run(path, source, kind, [[item] for item in together])
        padded = _run(path, source, kind, [together])
        moved = ((padded - alone).abs() / (1 + alone.abs())).max().item()
        assert moved < TOLERANCE or variant.padding_moves, f"{path.name}: padding moves the output by {moved}"
        assert moved > TOLERANCE or not variant.padding_moves, f"{path.name}: padding moves the output by {moved} only"
    return answer, apart


def _run(path: Path, source, kind: str, batches: list[list[dict]]):
    import onnxruntime
    import torch

    import onnx_source

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    kind_of = {value.name: "int32" if "int32" in value.type else "int64" for value in session.get_inputs()}
    found = []
    for items in batches:
        tensors = onnx_source.batch(items, source.arguments, source.padding)
        feed = {name: tensors[name].numpy().astype(kind_of[name]) for name in kind_of}
        outputs = session.run(onnx_source.OUTPUTS[kind], feed)
        found.append(onnx_source.rows([torch.from_numpy(output).float() for output in outputs], kind, items))
    return torch.cat(found)


if __name__ == "__main__":
    main()
