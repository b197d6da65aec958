"""Goldens of models that read a text and write another: tiny random checkpoints with tokenizers, and what the pipelines of
transformers answer with them.

For each model a folder with `config.json`, `generation_config.json` and `model.safetensors` (f16), `tokenizer.json` with a recipe as
in `tokenizer_classes.py`, and `asks.json`: tasks, bodies, and the replies to them.
"""

import copy
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import readable
import tokenizer_classes
import torch
import transformers
import translators
from transformers import AutoTokenizer, GenerationConfig, pipeline
from transformers.utils import logging

LONG = tokenizer_classes.LONG
OWN = tokenizer_classes.OWN
NASTY = "  Café cafe\u0301 \ufb01ne,  tea🍵and☕️coffee </s> don't , it 's  "
PREFIXES = {
    "summarization": {"prefix": "summarize: ", "min_length": 8, "no_repeat_ngram_size": 3, "length_penalty": 2.0,
                      "early_stopping": True, "num_beams": 3, "max_length": 30},
    "translation_en_to_de": {"prefix": "translate English to German: "},
    "translation_en_to_fr": {"prefix": "translate English to French: ", "num_beams": 2},
}  # fmt: skip


def _ask(task: str, inputs, **parameters) -> dict:
    return {"task": task, "body": {"inputs": inputs, "parameters": parameters} if parameters else {"inputs": inputs}}


def _languages(source: str, target: str) -> list[dict]:
    """What models of several languages are asked."""
    return [
        _ask("translation", OWN[0], src_lang=source, tgt_lang=target),
        _ask("translation", [NASTY, OWN[3]], src_lang=target, tgt_lang=source, max_new_tokens=12, num_beams=1),
        _ask("translation", [OWN[2], "a"], src_lang=source, tgt_lang=source, num_return_sequences=2, max_new_tokens=9,
             clean_up_tokenization_spaces=True),
        _ask("text2text-generation", OWN[1], max_new_tokens=10),
    ]  # fmt: skip


def _sizes(**more) -> dict:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"d_model": 24, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 200}
    return layers | widths | {"init_std": 0.25} | more


PLAIN = [
    _ask("text2text-generation", OWN[0], max_new_tokens=16),
    _ask("text2text-generation", [OWN[1], NASTY, ""], max_new_tokens=12, num_beams=1),
    _ask("text2text-generation", ["a", OWN[3]], max_new_tokens=12, num_return_sequences=3),
    _ask("text2text-generation", OWN[3], max_new_tokens=12, repetition_penalty=1.4, min_length=6,
         clean_up_tokenization_spaces=True),
    _ask("summarization", LONG),
    _ask("summarization", [OWN[0], OWN[2]], min_length=9, max_new_tokens=14, truncation=True),
]  # fmt: skip

T5 = {"d_model": 24, "d_kv": 12, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}

# By name: the class, its configuration, what generation_config.json says, the case of its tokenizer, what it is asked.
MODELS = {
    "t5": (
        "T5", T5 | {"initializer_factor": 2.0, "task_specific_params": PREFIXES}, {"max_length": 36}, "t5",
        [*PLAIN, _ask("translation", OWN[0]), _ask("translation_en_to_fr", [OWN[0], OWN[3]], max_new_tokens=20),
         _ask("translation_en_to_de", OWN[1], max_new_tokens=20)],
    ),
    "bart": (
        "Bart", _sizes(), {"max_length": 40, "min_length": 10, "num_beams": 2, "no_repeat_ngram_size": 3,
                           "early_stopping": True, "length_penalty": 2.0}, "bart", PLAIN,
    ),
    "mbart": ("MBart", _sizes(), {"max_length": 24}, "mbart", _languages("de_DE", "ro_RO")),
    "mbart50": ("MBart", _sizes(scale_embedding=True), {"max_length": 24}, "mbart50", _languages("en_XX", "sl_SI")),
    "marian": (
        "Marian", _sizes(scale_embedding=True, activation_function="swish", pad_token_id=3, eos_token_id=1,
                         forced_eos_token_id=1, decoder_start_token_id=3),
        {"max_length": 24, "num_beams": 6, "bad_words_ids": [[3]]}, "marian",
        [_ask("translation", OWN[0]), _ask("translation", [">>fra<< " + OWN[3], ">>deu<<" + NASTY], max_new_tokens=14),
         _ask("translation_en_to_fr", OWN[1], num_beams=1), _ask("text2text-generation", OWN[2], num_return_sequences=2)],
    ),
    "m2m": ("M2M100", _sizes(scale_embedding=True, pad_token_id=3, eos_token_id=1, decoder_start_token_id=1),
            {"max_length": 24}, "m2m-listed", _languages("de", "fr")),
    "nllb": ("M2M100", _sizes(), {"max_length": 24, "num_beams": 5}, "nllb", _languages("eng_Latn", "fra_Latn")),
}  # fmt: skip

CASES = {case["name"]: case for case in [*tokenizer_classes.CASES, *translators.CASES]}


def write(folder: Path, files: Path) -> None:
    """Writes the folder of every model; vocabularies are in `files`."""
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for seed, (name, (kind, config, generation, tokenizer, asks)) in enumerate(MODELS.items()):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer_classes._assemble(CASES[tokenizer], files, Path(scratch))
            model = _model(kind, config, generation, AutoTokenizer.from_pretrained(scratch), seed)
            model.half().save_pretrained(folder / name)
            # As it is read: sinusoids are made anew, and not rounded.
            model = type(model).from_pretrained(folder / name, dtype=torch.float32).eval()
            # A tokenizer remembers the languages that it was asked for.
            replies = [ask | {"reply": _reply(model, AutoTokenizer.from_pretrained(scratch), ask)} for ask in asks]
        readable.write(folder / name / "tokenizer.recipe.json", CASES[tokenizer])
        readable.write(folder / name / "asks.json", replies)
        texts = json.dumps([reply["reply"] for reply in replies])
        assert len({reply for reply in texts.split('"') if len(reply) > 4}) > 4, f"{name} always says the same"


def _model(kind: str, config: dict, generation: dict, tokenizer, seed: int):
    torch.manual_seed(seed)
    size = max(*tokenizer.get_vocab().values(), *getattr(tokenizer, "lang_token_to_id", {"": 0}).values()) + 1
    config = getattr(transformers, f"{kind}Config")(vocab_size=size, **config)
    name = "MarianMTModel" if kind == "Marian" else f"{kind}ForConditionalGeneration"
    model = getattr(transformers, name)(config).eval()
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None:
        bias.normal_(std=0.3)
    # So that the last token doesn't decide alone on the next.
    for tensor_name, tensor in model.named_parameters():
        if tensor.dim() == 2 and not any(word in tensor_name for word in ["shared", "embed", "lm_head", "relative"]):
            tensor.data *= 4.0
    own = model.generation_config
    start = {key: getattr(own, key) for key in ["decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id"]}
    forced = {"forced_eos_token_id": own.forced_eos_token_id}
    if start["decoder_start_token_id"] is None:
        start["decoder_start_token_id"] = start["eos_token_id"]
    model.generation_config = GenerationConfig(**start, **forced, **generation)
    return model


def _reply(model, tokenizer, ask: dict):
    body = ask["body"]
    # A pipeline takes prefixes out of the configuration that it reads them from.
    settings = copy.deepcopy(model.config.task_specific_params)
    with torch.no_grad():
        reply = pipeline(ask["task"], model=model, tokenizer=tokenizer)(body["inputs"], **body.get("parameters", {}))
    model.config.task_specific_params = settings
    return reply
