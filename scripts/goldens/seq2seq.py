"""The fixtures of models with an encoder and a decoder: tiny random checkpoints, and what transformers writes with them.

For each family: `weights.safetensors` (f16; tensors named `<group>/<name>`), `cases.json` and `outputs.safetensors`. The script fails
unless padding of the texts under a mask changes nothing, every tensor moves an output, and each case answers otherwise.
"""

import json
import re
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

import family_weights
from families import CONTINUED, LEAST, LEAST_AHEAD, LEAST_APART, MOST_BYTES, PROMPTS, _save
from family_cases import BART, Case, Family
from oracle import F32

# How far f32 may be from f64, so that 1e-4 says something.
MOST_DRIFT = 3e-5
LENGTHS = [1, 3, 17, 40]
# What a task asks of a model that translates.
WRITTEN = {
    "num_beams": 4,
    "num_return_sequences": 2,
    "max_new_tokens": 40,
    "length_penalty": 0.8,
    "early_stopping": True,
    "no_repeat_ngram_size": 2,
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 2,
    "eos_token_id": 2,
}
# Gains at which tied words tell tokens apart, and greedy search does not repeat one token only.
TELLING = {"embedding": 0.3, "plain": 2.0, "down": 12.0}
UNSEEN = (r"\.k_proj\.bias", r"embed_positions")


def t5() -> Family:
    sizes = {"vocab_size": 128, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    base = sizes | {"model_type": "t5", "decoder_start_token_id": 0, "pad_token_id": 0}
    untied = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}
    cases = [
        Case("base", "T5ForConditionalGeneration"),
        Case("untied", "T5ForConditionalGeneration", untied),
        Case("deeper", "T5ForConditionalGeneration", {"num_decoder_layers": 3}),
        Case("near", "T5ForConditionalGeneration", {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}),
        Case("mt5", "MT5ForConditionalGeneration", {"model_type": "mt5", "feed_forward_proj": "gated-gelu"}, same_as="untied"),
    ]
    gains = {"peaked": 0.5, "down": 9.0, "embedding": 0.6}
    return Family("t5", base, cases, [], gains=gains, unseen=())


def bart() -> Family:
    kind = "BartForConditionalGeneration"
    cases = [
        Case("base", kind),
        Case("scaled", kind, {"scale_embedding": True, "activation_function": "relu"}),
        Case("deeper", kind, {"decoder_layers": 3, "decoder_attention_heads": 2}),
        Case("shallow", kind, {"encoder_layers": 1}),
    ]
    base = BART | {"model_type": "bart", "max_position_embeddings": 128, "decoder_start_token_id": 2, "forced_eos_token_id": None}
    gains = {"embedding": 0.3, "peaked": 1.0, "down": 4.0}
    return Family("bart", base, cases, [], prefix="model.", padding=1, gains=gains, unseen=UNSEEN[:1])


def mbart() -> Family:
    kind = "MBartForConditionalGeneration"
    cases = [Case("base", kind), Case("scaled", kind, {"scale_embedding": True, "activation_function": "relu"})]
    base = BART | {"model_type": "mbart", "max_position_embeddings": 128, "decoder_start_token_id": 5, "forced_eos_token_id": None}
    return Family("mbart", base, cases, [], prefix="model.", padding=1, gains=TELLING, unseen=UNSEEN[:1])


def marian() -> Family:
    kind = "MarianMTModel"
    cases = [
        Case("base", kind, {"activation_function": "swish"}),
        Case("apart", kind, {"share_encoder_decoder_embeddings": False}),
        # Positions then stand out, and texts hardly show in scores.
        Case("unscaled", kind, {"scale_embedding": False}, unseen=(r"encoder_attn\.[qk]_proj", r"q_proj\.bias")),
    ]
    base = BART | {"model_type": "marian", "max_position_embeddings": 128, "forced_eos_token_id": None, "eos_token_id": 2}
    base |= {"decoder_start_token_id": 1, "pad_token_id": 1, "scale_embedding": True}
    return Family("marian", base, cases, [], prefix="model.", padding=1, gains=TELLING, unseen=UNSEEN)


def m2m_100() -> Family:
    kind = "M2M100ForConditionalGeneration"
    cases = [
        Case("base", kind, {"decoder_layers": 3}),
        Case("unscaled", kind, {"scale_embedding": False, "activation_function": "gelu"}),
    ]
    base = BART | {"model_type": "m2m_100", "max_position_embeddings": 128, "decoder_start_token_id": 2}
    return Family("m2m_100", base, cases, [], prefix="model.", padding=1, gains=TELLING, unseen=UNSEEN[:1])


def write(fixtures: Path, only: list[str]) -> None:
    """Writes the families named in `only`, or all, into `fixtures`."""
    for make in (t5, bart, mbart, marian, m2m_100):
        if not only or make.__name__ in only:
            _write_family(make(), fixtures / make().name)


def _write_family(family: Family, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inputs = [_input(family, length) for length in LENGTHS]
    pool, used, cases, outputs, found = {}, {}, [], {}, {}
    for case in family.cases:
        tensors = _draw(family, case)
        model = _load(family, case, tensors)
        place = f"{family.name} {case.name}"
        answer = torch.cat([_predict(model, [item], family.padding)[0] for item in inputs])
        _check(family, case, model, inputs, answer)
        # Rounded once, so that what is found is compared with the numbers and not with another's rounding.
        exact = torch.cat([_predict(model.double(), [item], family.padding)[0] for item in inputs]).float()
        model.float()
        print(f"  {place}: f32 differs by {(exact - answer).abs().max():.1e}")
        outputs[f"{case.name}.predictions"] = exact
        for name, tensor in tensors.items():
            key = (name, zlib.crc32(tensor.numpy().tobytes()))
            pool[key] = tensor
            used.setdefault(key, []).append(case.name)
        entry = {"name": case.name, "kind": "predictions", "inputs": list(range(len(inputs))), "config": _config(family, case)}
        entry["greedy"], found[f"{case.name}.greedy"] = _searched(model, inputs, {}, place)
        entry["beams"], found[f"{case.name}.beams"] = _searched(model, inputs, {"num_beams": 4}, place)
        entry["written"], found[f"{case.name}.written"] = _searched(model, inputs, WRITTEN, place)
        cases.append(entry)
    _distinct(family, outputs)
    _save(family, folder, pool, used, cases, inputs, outputs | found)


def _input(family: Family, length: int) -> dict:
    """A text for the encoder, and what the decoder has written of its answer, from its first token on."""
    ids = [10 + (7 * length + 31 * position) % 117 for position in range(length - 1)] + [2]
    start = family.base["decoder_start_token_id"]
    written = [10 + (5 * length + 43 * position) % 117 for position in range(44 - length)]
    return {"ids": ids, "written": [start, *written]}


def _config(family: Family, case: Case) -> dict:
    return {"architectures": [case.architecture]} | family.base | case.fields


def _draw(family: Family, case: Case) -> dict[str, torch.Tensor]:
    """The tensors of the checkpoint, as `save_pretrained` stores them."""
    model = getattr(transformers, case.architecture)(transformers.AutoConfig.for_model(**_config(family, case)))
    family_weights.fill(model, family.name, family.prefix, family.gains)
    if "final_logits_bias" in dict(model.named_buffers()):
        draw = numpy.random.default_rng(17).normal(0, 0.5, model.final_logits_bias.shape)
        model.final_logits_bias = torch.from_numpy(draw.astype(numpy.float16).astype(numpy.float32))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


def _load(family: Family, case: Case, tensors: dict[str, torch.Tensor]):
    """The model that transformers makes of the checkpoint, eager and in f32."""
    kind = getattr(transformers, case.architecture)
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: tensor.half() for name, tensor in tensors.items()}, f"{folder}/model.safetensors", {"format": "pt"})
        Path(folder, "config.json").write_text(json.dumps(_config(family, case)), encoding="utf-8")
        model, report = kind.from_pretrained(folder, **F32, output_loading_info=True)
    missing = [name for name in report["missing_keys"] if "embed_positions" not in name]
    assert not missing and not report["unexpected_keys"], f"{family.name} {case.name}: {report}"
    return model.eval()


def _predict(model, items: list[dict], pad: int) -> list[torch.Tensor]:
    """The logits behind every token that is written, of items in one batch whose texts are padded."""
    texts, masks = _padded([item["ids"] for item in items], pad)
    written, _ = _padded([item["written"] for item in items], 9)
    with torch.inference_mode():
        logits = model(input_ids=texts, attention_mask=masks, decoder_input_ids=written).logits
    return [rows[: len(item["written"])] for item, rows in zip(items, logits, strict=True)]


def _padded(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    fill = lambda row, value: row + [value] * (longest - len(row))  # noqa: E731
    return torch.tensor([fill(row, pad) for row in rows]), torch.tensor([fill([1] * len(row), 0) for row in rows])


def _searched(model, inputs: list[dict], parameters: dict, place: str) -> tuple[list[int], torch.Tensor]:
    """Indices of a few texts for which a search finds the same in f32 and in f64, and the tokens that it finds, -1 behind the last."""
    found = []
    for index, item in enumerate(inputs):
        tokens = _generate(model, item, parameters)
        exact = _generate(model.double(), item, parameters)
        model.float()
        if torch.equal(tokens, exact):
            found.append((len(set(tokens.flatten().tolist())), index, tokens))
    found = sorted(found, key=lambda entry: (-entry[0], entry[1]))[:PROMPTS]
    print(f"  {place}: {[(kinds, list(tokens.shape)) for kinds, _, tokens in found]} different tokens")
    assert len(found) == PROMPTS and found[0][0] > 1, place
    longest = max(tokens.shape[1] for _, _, tokens in found)
    pad = lambda tokens: torch.nn.functional.pad(tokens, (0, longest - tokens.shape[1]), value=-1)  # noqa: E731
    return [index for _, index, _ in found], torch.cat([pad(tokens) for _, _, tokens in found]).float()


def _generate(model, item: dict, parameters: dict) -> torch.Tensor:
    """The new tokens of every answer; -1 behind their ends. Greedy search must not come near a tie."""
    start = item["written"][0]
    # Caches of transformers have as many layers as the encoder.
    settings = {"do_sample": False, "use_cache": False, "max_new_tokens": CONTINUED, "decoder_start_token_id": start}
    settings |= {"pad_token_id": 127} | parameters
    model.generation_config = transformers.GenerationConfig(output_scores=True, return_dict_in_generate=True, **settings)
    ids = torch.tensor([item["ids"]])
    with torch.inference_mode():
        answer = model.generate(ids, attention_mask=torch.ones_like(ids))
    if not parameters:
        best = torch.stack(answer.scores).topk(2, dim=-1).values
        if (best[..., 0] - best[..., 1]).min() < LEAST_AHEAD:
            return torch.rand(1, CONTINUED)
    tokens = answer.sequences[:, 1:].clone()
    for row in tokens:
        ends = (row == settings.get("eos_token_id", -1)).nonzero()
        if len(ends):
            row[int(ends[0]) + 1 :] = -1
    return tokens


def _check(family: Family, case: Case, model, inputs: list[dict], answer: torch.Tensor) -> None:
    padded = torch.cat(_predict(model, inputs, family.padding))
    apart = (padded - answer).abs().max().item()
    assert apart < 1e-4, f"{family.name} {case.name}: padding moves the output by {apart}"
    seen = inputs[-2:]
    plain = torch.cat([_predict(model, [item], family.padding)[0] for item in seen])
    least = (float("inf"), "")
    tensors = dict(model.named_parameters()) | {name: kept for name, kept in model.named_buffers() if "logits_bias" in name}
    for name, tensor in tensors.items():
        if any(re.search(pattern, name) for pattern in family.unseen + case.unseen):
            continue
        kept = tensor.data.clone()
        tensor.data.fill_(1.0 if "norm" in name.lower() and kept.min() > 0.4 else 0.0)
        changed = torch.cat([_predict(model, [item], family.padding)[0] for item in seen])
        tensor.data.copy_(kept)
        moved = (changed - plain).abs().max().item()
        assert moved > LEAST, f"{family.name} {case.name}: `{name}` moves the output by {moved} only"
        least = min(least, (moved, name))
    exact = torch.cat([_predict(model.double(), [item], family.padding)[0] for item in inputs])
    model.float()
    drift = ((exact - answer).abs() / (1 + exact.abs())).max().item()
    assert drift < MOST_DRIFT, f"{family.name} {case.name}: f32 is {drift} from f64"
    spread = answer.abs().max().item()
    print(f"  {family.name} {case.name}: f32 from f64 {drift:.1e}, largest {spread:.1f}, least seen {least[0]:.3f} {least[1]}")


def _distinct(family: Family, outputs: dict[str, torch.Tensor]) -> None:
    """Every two cases answer differently, unless one says that it answers as the other does."""
    same = {f"{case.name}.predictions": case.same_as or case.name for case in family.cases}
    names = sorted(outputs)
    for index, left in enumerate(names):
        for right in names[index + 1 :]:
            moved = (outputs[left] - outputs[right]).abs().max().item()
            alike = same[left] == same[right]
            assert (moved == 0) if alike else (moved > LEAST_APART), f"{family.name}: {left} and {right} differ by {moved}"
