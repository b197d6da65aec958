"""What transformers makes of logits: processors, distributions that it draws from, greedy and beam search.

The model is a formula (`logits`), the same in `crates/generate/tests/suite/table`, so no weights are stored. What is written is described in
crates/generate/tests/goldens/README.md.
"""

import random
from pathlib import Path

import readable
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutput

VOCABULARY = 40
MASK = 0xFFFFFFFF
OURS = {
    "max_new_tokens", "min_length", "min_new_tokens", "early_stopping", "do_sample", "num_beams", "num_return_sequences",
    "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty",
    "encoder_repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "sequence_bias", "renormalize_logits", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "pad_token_id", "bos_token_id", "eos_token_id",
    "decoder_start_token_id", "prompt_lookup_num_tokens", "max_matching_ngram_size", "stop_strings",
}  # fmt: skip


def write(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=512, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = Table(config).eval()
    defaults = GenerationConfig().to_dict()
    readable.write(folder / "defaults.json", {name: defaults[name] for name in sorted(OURS)})
    readable.write(folder / "processors.json", processors(model))
    readable.write(folder / "distributions.json", distributions(model))
    readable.write(folder / "sequences.json", sequences(model))


def logits(ids: list[int], salt: int) -> list[float]:
    """Numbers from -4 to 4 that depend on the last two tokens: exact in 32 bits, and without ties worth the name."""
    last, before = ids[-1], ids[-2] if len(ids) > 1 else 0
    return [_mixed(last * 7919 + before * 104729 + token * 1299709 + salt * 15485863) / 2**20 - 4 for token in range(VOCABULARY)]


def _mixed(number: int) -> int:
    number = number * 2654435761 & MASK
    number = (number ^ number >> 15) * 2246822519 & MASK
    number = (number ^ number >> 13) * 3266489917 & MASK
    return (number ^ number >> 16) >> 9


class Table(LlamaForCausalLM):
    """A model that is a formula."""

    salt = 0

    def forward(self, input_ids=None, **_) -> CausalLMOutput:
        rows = [logits(ids, self.salt) for ids in input_ids.tolist()]
        return CausalLMOutput(logits=torch.tensor(rows).unsqueeze(1))


def processors(model: Table) -> list[dict]:
    """Scores before and after; the names of parameters say which processors there are."""
    source = random.Random(8)
    repeated = [1, 2, 3, 1, 2, 3, 4, 1, 2]
    plain = [
        {"repetition_penalty": 1.3}, {"repetition_penalty": 0.7}, {"encoder_repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 10},
        {"no_repeat_ngram_size": 11}, {"encoder_no_repeat_ngram_size": 2}, {"encoder_no_repeat_ngram_size": 3},
        {"bad_words_ids": [[5], [1, 2, 7], [2, 9], [9, 9, 9], [39]], "eos_token_id": 39},
        {"sequence_bias": [[[5], 2.5], [[1, 2, 7], -3.0], [[2, 7], 1.25], [[3, 7], 9.0], [[5], -0.5]]},
        {"min_length": 9, "eos_token_id": 39}, {"min_length": 10, "eos_token_id": [39, 4]},
        {"min_new_tokens": 3, "eos_token_id": 39}, {"min_new_tokens": 4, "eos_token_id": 39},
        {"forced_bos_token_id": 7}, {"forced_eos_token_id": 39, "max_length": 10}, {"forced_eos_token_id": [39, 5], "max_length": 10},
        {"forced_eos_token_id": 39, "max_length": 11}, {"remove_invalid_values": True},
        {"exponential_decay_length_penalty": (1, 1.4), "eos_token_id": 39}, {"exponential_decay_length_penalty": (3, 1.4), "eos_token_id": 39},
        {"suppress_tokens": [0, 8, 17]}, {"begin_suppress_tokens": [1, 4]}, {"renormalize_logits": True},
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "bad_words_ids": [[11]], "suppress_tokens": [12], "renormalize_logits": True},
    ]  # fmt: skip
    drawn = [
        {}, {"temperature": 0.3}, {"temperature": 2.5, "top_k": 0}, {"top_k": 1}, {"top_k": 5}, {"top_k": 100}, {"top_k": 0, "top_p": 0.9},
        {"top_k": 0, "top_p": 0.1}, {"top_p": 0.0}, {"top_p": 0.999}, {"top_k": 8, "top_p": 0.6}, {"top_k": 0, "min_p": 0.1},
        {"top_k": 7, "min_p": 0.3}, {"min_p": 0.0}, {"min_p": 1.0}, {"top_k": 0, "typical_p": 0.5}, {"top_k": 6, "typical_p": 0.8},
        {"typical_p": 0.01}, {"top_k": 0, "epsilon_cutoff": 0.03}, {"top_k": 0, "epsilon_cutoff": 0.9}, {"top_k": 0, "eta_cutoff": 0.05},
        {"top_k": 9, "eta_cutoff": 0.9}, {"top_k": 0, "renormalize_logits": True}, {"top_k": 4, "renormalize_logits": True},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05, "typical_p": 0.9, "epsilon_cutoff": 0.01, "renormalize_logits": True},
        {"num_beams": 3, "top_k": 1, "eos_token_id": [39, 38]}, {"num_beams": 3, "top_p": 0.05, "eos_token_id": 39},
        {"num_beams": 3, "min_p": 0.99}, {"num_beams": 3, "epsilon_cutoff": 0.9}, {"num_beams": 2, "top_k": 0, "typical_p": 0.01},
        {"bad_words_ids": [[11]], "suppress_tokens": [12, 13], "top_k": 38, "top_p": 0.95, "repetition_penalty": 1.1},
    ]  # fmt: skip
    cases = [processed(model, parameters, repeated, 6, source) for parameters in plain]
    cases += [processed(model, {"forced_bos_token_id": 7, "begin_suppress_tokens": [1, 4]}, [1] * length, 1, source) for length in (1, 2)]
    cases += [processed(model, {"begin_suppress_tokens": [1, 4]}, [1, 2, 3], 3, source)]
    cases += [processed(model, {"do_sample": True, **parameters}, repeated, 6, source) for parameters in drawn]
    # Scores of few values: many are equal.
    tied = [{"top_k": 3}, {"top_k": 30}, {"top_k": 0, "top_p": 0.7}, {"top_k": 0, "min_p": 0.5}, {"top_k": 0, "typical_p": 0.4}]
    cases += [processed(model, {"do_sample": True, **parameters}, repeated, 6, source, 3) for parameters in tied]
    return cases


def processed(model: Table, parameters: dict, ids: list[int], prompt: int, source: random.Random, values: int = 0) -> dict:
    scores = [float(source.randrange(values)) if values else source.gauss(0, 3) for _ in range(VOCABULARY)]
    row = torch.tensor([scores], dtype=torch.float32)
    if parameters.get("remove_invalid_values"):
        row[0, 3], row[0, 4], row[0, 5] = float("nan"), float("inf"), float("-inf")
    expected = _list(model, parameters, ids, prompt)(torch.tensor([ids]), row.clone())
    case = {"parameters": parameters, "prompt": prompt, "ids": ids}
    return case | {"scores": _numbers(row[0]), "expected": _numbers(expected[0])}


def _list(model: Table, parameters: dict, ids: list[int], prompt: int):
    """The processors that `generate` would use."""
    config = GenerationConfig(**parameters)
    model._prepare_special_tokens(config, True, device="cpu")
    if config.min_new_tokens is not None:
        config.min_length = config.min_new_tokens + prompt
    encoder = torch.tensor([ids[:prompt]])
    return model._get_logits_processor(generation_config=config, input_ids_seq_length=prompt, encoder_input_ids=encoder)


def _numbers(row: torch.Tensor) -> list:
    """JSON has no infinities: they are words."""
    return [value if value == value and abs(value) != float("inf") else str(value) for value in row.tolist()]


def distributions(model: Table) -> list[dict]:
    """Probabilities of each next token."""
    kinds = [
        {"top_k": 0}, {}, {"top_k": 10, "temperature": 0.6}, {"top_k": 0, "top_p": 0.8}, {"min_p": 0.1, "temperature": 1.5},
        {"typical_p": 0.7}, {"repetition_penalty": 1.5, "top_p": 0.9, "top_k": 20},
    ]  # fmt: skip
    cases = []
    for salt, parameters in enumerate(kinds):
        parameters = {"do_sample": True, **parameters}
        ids = [3, 1, 4, 1, 5]
        row = torch.tensor([logits(ids, salt)])
        scores = _list(model, parameters, ids, 3)(torch.tensor([ids]), row)
        probabilities = torch.softmax(scores.double(), dim=-1)[0].tolist()
        cases.append({"parameters": parameters, "salt": salt, "prompt": 3, "ids": ids, "probabilities": probabilities})
    return cases


def sequences(model: Table) -> list[dict]:
    """Greedy and beam search over the formula; with the scores of beams."""
    eos = [{}, {"eos_token_id": 39}, {"eos_token_id": [39, 7, 12]}]
    beams = [
        {"num_beams": count, "early_stopping": early, "length_penalty": penalty, "num_return_sequences": count}
        for count in (2, 3, 5)
        for early in (False, True, "never")
        for penalty in (1.0, 0.0, 2.0, -1.0)
    ]
    cases = [generated(model, end | {"max_new_tokens": 64}, [1, 2, 3], salt) for end in eos for salt in range(3)]
    cases += [generated(model, end | beam | {"max_new_tokens": 24}, [5, 6], 3 + number) for number, beam in enumerate(beams) for end in eos]
    more = [
        {"forced_bos_token_id": 9}, {"forced_eos_token_id": 39}, {"forced_bos_token_id": 9, "forced_eos_token_id": 39, "eos_token_id": 39},
        {"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.4}, {"min_new_tokens": 12, "eos_token_id": [39, 1, 2, 3, 4]},
        {"bad_words_ids": [[3], [4, 5]], "eos_token_id": 39}, {"suppress_tokens": [1, 2, 3], "begin_suppress_tokens": [4]},
        {"exponential_decay_length_penalty": (4, 1.2), "eos_token_id": 39}, {"max_length": 9}, {"encoder_no_repeat_ngram_size": 1},
        {"renormalize_logits": True, "eos_token_id": 39, "repetition_penalty": 1.2},
    ]  # fmt: skip
    for salt, parameters in enumerate(more):
        length = {} if "max_length" in parameters else {"max_new_tokens": 20}
        cases.append(generated(model, parameters | length, [8], 50 + salt))
        cases.append(generated(model, parameters | length | {"num_beams": 4, "num_return_sequences": 2}, [8], 70 + salt))
    cases.append(generated(model, {"max_new_tokens": 64, "num_beams": 4}, [1, 2, 3], 90))
    return cases + early_stops(model)


def early_stops(model: Table) -> list[dict]:
    """Searches whose answers depend on when they end: for each pair of ways, those of the first salts where they differ."""
    chosen = []
    for ways in [(False, True), (False, "never"), (True, "never")]:
        found = 0
        for salt in range(100, 200):
            beams, penalty, ends = 2 + salt % 3, (1.0, 2.0, 0.5, -0.5)[salt % 4], 3 + salt % 7
            parameters = {"num_beams": beams, "num_return_sequences": beams, "length_penalty": penalty, "eos_token_id": list(range(40 - ends, 40))}
            pair = [generated(model, parameters | {"max_new_tokens": 24, "early_stopping": way}, [5, 6], salt) for way in ways]
            if pair[0]["answers"] != pair[1]["answers"]:
                chosen += pair
                found += 1
            if found == 5:
                break
    return chosen


def generated(model: Table, parameters: dict, prompt: list[int], salt: int) -> dict:
    model.salt = salt
    # Without these, those of an unset configuration would count.
    out = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), use_cache=False, pad_token_id=0, return_dict_in_generate=True,
        output_scores=True, output_logits=True, **parameters,
    )  # fmt: skip
    case = {"parameters": parameters, "salt": salt, "prompt": prompt}
    if parameters.get("num_beams", 1) == 1:
        return case | {"answers": [{"ids": out.sequences[0, len(prompt):].tolist()}]}
    lengths = (out.beam_indices >= 0).sum(dim=1).tolist()
    ids = [row[len(prompt):len(prompt) + length].tolist() for row, length in zip(out.sequences, lengths)]
    answers = [{"ids": ids, "score": score} for ids, score in zip(ids, out.sequences_scores.tolist())]
    return case | {"answers": answers}
