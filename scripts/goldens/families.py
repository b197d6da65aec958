"""The fixtures of the families: tiny random checkpoints of every class, and what transformers answers for them.

For each family: `weights.safetensors` (f16; tensors named `<group>/<name>`), `cases.json` and `outputs.safetensors`.
The script fails unless padding under a mask changes nothing, and every tensor and every field moves an output.
"""

import json
import re
import shutil
import tempfile
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import family_weights
import nomic_bert
import readable
from family_cases import FAMILIES, LABELS, LENGTHS, MASK, Case, Family
from oracle import F32

# What zeroing a tensor moves at least.
LEAST = 1e-2
# What a field moves at least; the two GELUs themselves are 5e-4 apart.
LEAST_APART = 2e-3
MOST_BYTES = 2_000_000
# Tokens that greedy search goes on for, and how far the best one is ahead at least.
CONTINUED = 64
LEAST_AHEAD = 1e-3
PROMPTS = 2
# Beams of the search, and how many of them are told.
BEAMS = {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5}
# Spelling of `config.json` → class of an output.
KINDS = {
    "ForSequenceClassification": "logits",
    "ForTokenClassification": "token_logits",
    "ForQuestionAnswering": "spans",
    "ForMaskedLM": "predictions",
    "BertForPreTraining": "predictions",
    "ForCausalLM": "predictions",
    "LMHeadModel": "predictions",
    "ElectraForPreTraining": "token_logits",
}


def write(fixtures: Path, only: list[str]) -> None:
    """Writes the families named in `only`, or all, into `fixtures`."""
    for make in FAMILIES:
        if not only or make.__name__ in only:
            _write_family(make(), fixtures / make().name)


def _write_family(family: Family, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pool, used, cases, outputs, continued = {}, {}, [], {}, {}
    inputs = {length: _input(family, length) for case in family.cases for length in case.lengths}
    if family.end is not None:
        inputs["two ends"] = _two_ends(family)
    for case in family.cases:
        tensors = _draw(family, case)
        asked = [inputs[length] for length in case.lengths]
        if family.end is not None:
            asked.append(inputs["two ends"])
        model = _load(family, case, tensors)
        kind, answer = _answer(model, case, asked)
        _check(family, case, model, asked, answer)
        outputs[f"{case.name}.{kind}"] = answer
        for name, tensor in tensors.items():
            key = (family.prefix + name if case.bare else name, zlib.crc32(tensor.numpy().tobytes()))
            pool[key] = tensor
            used.setdefault(key, []).append(case.name)
        order = list(inputs)
        places = [order.index(length) for length in case.lengths] + ([len(order) - 1] if family.end is not None else [])
        cases.append({"name": case.name, "kind": kind, "inputs": places, "config": _config(family, case)})
        if case.greedy and case.architecture.endswith(("ForCausalLM", "LMHeadModel")):
            prompts, tokens = _continue(model, list(inputs.values()), f"{family.name} {case.name}")
            cases[-1]["greedy"] = prompts
            continued[f"{case.name}.greedy"] = tokens
            prompts, tokens = _search(model, list(inputs.values()), f"{family.name} {case.name}")
            cases[-1]["beams"] = prompts
            continued[f"{case.name}.beams"] = tokens
    _distinct(family, outputs)
    cases += [_refused(family, field, fields) for field, fields in family.refuse]
    _save(family, folder, pool, used, cases, list(inputs.values()), outputs | continued)


def _save(family: Family, folder: Path, pool: dict, used: dict, cases: list, inputs: list, outputs: dict) -> None:
    """Tensors that the same cases use form a group; a case names its groups."""
    groups = {}
    for key, users in used.items():
        groups.setdefault(tuple(users), []).append(key)
    stored = {}
    for number, (users, keys) in enumerate(groups.items()):
        for key in keys:
            stored[f"{number}/{key[0]}"] = pool[key].half().contiguous()
        for case in cases:
            if case["name"] in users:
                case.setdefault("weights", []).append(number)
    for case in family.cases:
        if case.bare:
            next(entry for entry in cases if entry["name"] == case.name)["without_prefix"] = family.prefix
    readable.write(folder / "cases.json", {"inputs": inputs, "cases": cases})
    save_file(stored, folder / "weights.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, folder / "outputs.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    written = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{family.name}: {len(cases)} cases, {written} bytes")
    assert written <= MOST_BYTES, "too large to commit"


def _input(family: Family, length: int) -> dict:
    """Token ids spread over the vocabulary, some of them masked, some padding; the second half of token type 1."""
    ids = [10 + (7 * length + 31 * position) % 117 for position in range(length)]
    masked = sorted({length // 2, length - 1 - length // 3} if length > 3 else {length - 1})
    if family.padded_inside and length > 3:
        ids[3] = ids[length // 3] = family.padding
    if family.end is not None:
        ids[-1] = family.end
    else:
        for position in masked:
            ids[position] = MASK
    return {"ids": ids, "type_ids": [int(2 * position >= length + 1) for position in range(length)], "masked": masked}


def _two_ends(family: Family) -> dict:
    ids = [20, 30, family.end, 40, 50, 60, family.end, 70]
    return {"ids": ids, "type_ids": [0] * len(ids), "masked": [3]}


def _config(family: Family, case: Case) -> dict:
    labels = {}
    if case.architecture.endswith(("SequenceClassification", "TokenClassification")):
        labels = {"id2label": LABELS, "label2id": {label: int(id) for id, label in LABELS.items()}}
    return {"architectures": [case.architecture]} | family.base | case.fields | labels


def _refused(family: Family, field: str, fields: dict) -> dict:
    case = Case(f"refused-{field}", family.cases[0].architecture, fields, bare=family.cases[0].bare)
    entry = {"name": case.name, "refuse": field, "inputs": [], "config": _config(family, case)}
    return entry


def _class_of(case: Case):
    return getattr(transformers, case.architecture, None) or getattr(nomic_bert, case.architecture)


def _draw(family: Family, case: Case) -> dict[str, torch.Tensor]:
    """The tensors of the checkpoint, as `save_pretrained` stores them."""
    kind, fields = _class_of(case), _config(family, case)
    if kind.__module__ == "nomic_bert":
        model = kind(nomic_bert.configuration(fields))
        family_weights.fill(model, family.name, family.prefix, family.gains)
        tensors = dict(model.state_dict())
        if not case.bare:
            tensors = {family.prefix + name: tensor for name, tensor in tensors.items()}
    else:
        model = kind(transformers.AutoConfig.for_model(**fields))
        family_weights.fill(model, family.name, family.prefix, family.gains)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tensors = load_file(f"{folder}/model.safetensors")
        is_base = type(model.base_model) is kind and not hasattr(model, "lm_head")
        if not case.bare and model.base_model_prefix and is_base:
            tensors = {family.prefix + name: tensor for name, tensor in tensors.items()}
    left_out = (*case.without, "embed_positions.weight" if family.name == "roformer" else "position_ids")
    return {name: tensor for name, tensor in tensors.items() if not any(part in name for part in left_out)}


def _load(family: Family, case: Case, tensors: dict[str, torch.Tensor]):
    """The model that transformers makes of the checkpoint, eager and in f32."""
    kind, fields = _class_of(case), _config(family, case)
    if kind.__module__ == "nomic_bert":
        model = kind(nomic_bert.configuration(fields))
        model.load_state_dict({name.removeprefix(family.prefix): tensor for name, tensor in tensors.items()})
        return model.eval()
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: tensor.half() for name, tensor in tensors.items()}, f"{folder}/model.safetensors", {"format": "pt"})
        Path(folder, "config.json").write_text(json.dumps(fields), encoding="utf-8")
        model, report = kind.from_pretrained(folder, **F32, output_loading_info=True)
    missing = [name for name in report["missing_keys"] if not any(part in name for part in (*case.without, "embed_positions"))]
    assert not missing and not report["unexpected_keys"], f"{family.name} {case.name}: {report}"
    return model.eval()


def _run(model, items: list[dict], pad: int = 0) -> list:
    """Outputs of the items in one padded batch, each cut to its length."""
    longest = max(len(item["ids"]) for item in items)
    fill = lambda key, value: torch.tensor([item[key] + [value] * (longest - len(item[key])) for item in items])  # noqa: E731
    mask = torch.tensor([[1] * len(item["ids"]) + [0] * (longest - len(item["ids"])) for item in items])
    arguments = {"input_ids": fill("ids", pad), "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        arguments["token_type_ids"] = fill("type_ids", 0)
    with torch.inference_mode():
        output = model(**arguments)
    if "start_logits" in output.__dict__:
        found = torch.stack([output.start_logits, output.end_logits], dim=-1)
    elif "prediction_logits" in output.__dict__:
        found = output.prediction_logits
    elif "last_hidden_state" in output.__dict__:
        found = output.last_hidden_state
    else:
        found = output.logits
    return list(found)


def _rows(model, kind: str, items: list[dict], pad: int = 0) -> list[torch.Tensor]:
    """The rows of each item's output that are recorded."""
    found = _run(model, items, pad)
    if kind == "logits":
        return [row[None] for row in found]
    if kind == "predictions":
        return [rows[item["masked"]] for item, rows in zip(items, found, strict=True)]
    rows = [rows[: len(item["ids"])] for item, rows in zip(items, found, strict=True)]
    return [row[:, None] if row.dim() == 1 else row for row in rows]


def _kind(case: Case) -> str:
    return next((kind for ending, kind in KINDS.items() if case.architecture.endswith(ending)), "hidden")


def _answer(model, case: Case, inputs: list[dict]) -> tuple[str, torch.Tensor]:
    """The kind of the output, and the rows of all inputs, one sequence at a time."""
    kind = _kind(case)
    return kind, torch.cat([_rows(model, kind, [item])[0] for item in inputs])


def _continue(model, inputs: list[dict], place: str) -> tuple[list[int], torch.Tensor]:
    """Indices of a few inputs that greedy search goes on from with no tie on its way, and the tokens that it finds."""
    model.generation_config = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=CONTINUED, output_scores=True, return_dict_in_generate=True, pad_token_id=0
    )
    found = []
    for index, item in enumerate(inputs):
        ids = torch.tensor([item["ids"]])
        with torch.inference_mode():
            answer = model.generate(ids, attention_mask=torch.ones_like(ids))
        tokens = answer.sequences[0, len(item["ids"]) :]
        best = torch.stack(answer.scores).topk(2, dim=-1).values
        if len(tokens) == CONTINUED and (best[..., 0] - best[..., 1]).min() >= LEAST_AHEAD:
            found.append((len(set(tokens.tolist())), index, tokens))
    # Those of the most different tokens.
    found = sorted(found, key=lambda entry: (-entry[0], entry[1]))[:PROMPTS]
    print(f"  {place}: continuations of {[kinds for kinds, _, _ in found]} different tokens")
    assert len(found) == PROMPTS and found[0][0] > 1, place
    return [index for _, index, _ in found], torch.stack([tokens for _, _, tokens in found]).float()


def _search(model, inputs: list[dict], place: str) -> tuple[list[int], torch.Tensor]:
    """Indices of a few inputs whose beam search finds the same in f32 and in f64, and what it finds: the best beams of each."""
    found = []
    for index, item in enumerate(inputs):
        tokens = _beams(model, item["ids"])
        if torch.equal(tokens, _beams(model.double(), item["ids"])):
            found.append((len(set(tokens.flatten().tolist())), index, tokens))
        model.float()
    found = sorted(found, key=lambda entry: (-entry[0], entry[1]))[:PROMPTS]
    print(f"  {place}: beams of {[kinds for kinds, _, _ in found]} different tokens")
    assert len(found) == PROMPTS and found[0][0] > 1, place
    return [index for _, index, _ in found], torch.cat([tokens for _, _, tokens in found]).float()


def _beams(model, ids: list[int]) -> torch.Tensor:
    """The best beams `[num_return_sequences, CONTINUED]` that go on from `ids`."""
    model.generation_config = transformers.GenerationConfig(do_sample=False, max_new_tokens=CONTINUED, pad_token_id=0, **BEAMS)
    ids = torch.tensor([ids])
    with torch.inference_mode():
        return model.generate(ids, attention_mask=torch.ones_like(ids))[:, ids.shape[1] :]


def _check(family: Family, case: Case, model, inputs: list[dict], answer: torch.Tensor) -> None:
    kind = _kind(case)
    # A class that reads the last end wants equally many in each sequence of a batch.
    together = [item for item in inputs if family.end is None or item["ids"].count(family.end) == 1]
    alone = torch.cat([_rows(model, kind, [item])[0] for item in together])
    padded = torch.cat(_rows(model, kind, together, family.padding))
    apart = (padded - alone).abs().max().item()
    assert apart < 1e-4, f"{family.name} {case.name}: padding moves the output by {apart}"
    seen = inputs[-2:]
    plain = torch.cat([_rows(model, kind, [item])[0] for item in seen])
    least = (float("inf"), "")
    for name, parameter in model.named_parameters():
        if any(re.search(pattern, name) for pattern in family.unseen + case.unseen) or not parameter.requires_grad:
            continue
        if "pooler" in name and kind != "logits":
            continue
        kept = parameter.data
        parameter.data = torch.ones_like(kept) if "norm" in name.lower() and kept.dim() == 1 and kept.min() > 0.4 else torch.zeros_like(kept)
        changed = torch.cat([_rows(model, kind, [item])[0] for item in seen])
        parameter.data = kept
        moved = (changed - plain).abs().max().item()
        assert moved > LEAST, f"{family.name} {case.name}: `{name}` moves the output by {moved} only"
        least = min(least, (moved, name))
    exact = _answer(model.double(), case, inputs)[1]
    model.float()
    drift = ((exact - answer).abs() / (1 + exact.abs())).max().item()
    spread = answer.abs().max().item()
    print(f"  {family.name} {case.name}: f32 from f64 {drift:.1e}, largest {spread:.1f}, least seen {least[0]:.3f} {least[1]}")


def _distinct(family: Family, outputs: dict[str, torch.Tensor]) -> None:
    """Every two cases of the same shape answer differently, unless a case says that it answers as another does."""
    same = {case.name: case.same_as or case.name for case in family.cases}
    names = sorted(outputs)
    for index, left in enumerate(names):
        for right in names[index + 1 :]:
            if outputs[left].shape != outputs[right].shape:
                continue
            moved = (outputs[left] - outputs[right]).abs().max().item()
            alike = same[left.split(".")[0]] == same[right.split(".")[0]]
            assert (moved == 0) if alike else (moved > LEAST_APART), f"{family.name}: {left} and {right} differ by {moved}"
