"""Goldens of tokenizers of models that translate: what the classes make of texts in languages.

Marian's and M2M100's classes are in Python only; the others are asked here for their languages alone. Vocabularies are
those of `tokenizer_classes.py`; the lists of ids are made of them here.
"""

import gzip
import json
import random
import tempfile
import warnings
from pathlib import Path

import readable
import sentencepiece
import tokenizer_classes
from transformers import AutoTokenizer
from transformers.utils import logging

ROLES = tokenizer_classes.ROLES
TEXTS = [
    *tokenizer_classes.SINGLE,
    *tokenizer_classes.OWN,
    ">>fra<< Who wrote the letter?",
    ">>deu<<Who wrote the letter?",
    ">>xyz<< Who >>fra<< wrote it?",
    ">> no code <<",
    "a>>fra<<b",
    "__en__ words __de__words",
    "walks</s> walked <unk>walks<pad>walks",
    "new_word and  new_word  a new_word.",
    "eng_Latn fra_Latn de_DE",
]


def _pieces(*models: str):
    """A list of ids: special tokens, pieces of the models by turns, languages; a few pieces have none."""

    def write(path: Path) -> None:
        tokens = {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3}
        for name in models:
            model = sentencepiece.SentencePieceProcessor(model_file=str(path.parent / name))
            for piece in map(model.id_to_piece, range(len(model))):
                if len(piece.encode()) % 11 != 10:
                    tokens.setdefault(piece, len(tokens))
        for code in [">>fra<<", ">>deu<<", "madeupword0000"]:
            tokens[code] = len(tokens)
        path.write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")

    return write


FILES = {
    "m2m.vocab.json": _pieces("fairseq-bpe.model"),
    "m2m-unigram.vocab.json": _pieces("fairseq.model"),
    "marian.vocab.json": _pieces("fairseq.model", "fairseq-bpe.model"),
    "marian-kept.vocab.json": _pieces("t5.model", "albert.model"),
}

_case, _with, _token = tokenizer_classes._case, tokenizer_classes._with, tokenizer_classes._token


def _m2m(name: str, model: str, vocabulary: str, **config) -> dict:
    files = {"sentencepiece.bpe.model": model, "vocab.json": vocabulary}
    return _case(name, files, "M2M100Tokenizer", **config)


def _marian(name: str, source: str, target: str, vocabulary: str, **config) -> dict:
    return _case(name, {"source.spm": source, "target.spm": target, "vocab.json": vocabulary}, "MarianTokenizer", **config)


# The languages that a case is asked for, beside its own.
LANGUAGES = {
    "m2m": ["fr", "zu"],
    "m2m-listed": ["de"],
    "m2m-wmt21": ["de", "en"],
    "mbart": ["fr_XX", "zh_CN"],
    "mbart50": ["sl_SI", "de_DE"],
    "json-mbart": ["ro_RO"],
    "nllb": ["fra_Latn", "zul_Latn"],
    "nllb-legacy": ["ace_Arab"],
    "json-nllb": ["deu_Latn"],
}

CASES = [
    _m2m("m2m", "fairseq-bpe.model", "m2m.vocab.json"),
    _m2m("m2m-listed", "fairseq.model", "m2m-unigram.vocab.json", src_lang="fr", tgt_lang="de",
         additional_special_tokens=["__fr__", "__de__", "__en__"]),
    _with(
        _m2m("m2m-wmt21", "fairseq.model", "m2m-unigram.vocab.json", language_codes="wmt21", src_lang="ha",
             clean_up_tokenization_spaces=True),
        added_tokens__json={"new_word": 600},
    ),
    _with(
        {"name": "m2m-model-type", "files": {"sentencepiece.bpe.model": "fairseq-bpe.model", "vocab.json": "m2m.vocab.json"},
         "write": {}},
        config__json={"model_type": "m2m_100"},
    ),
    _marian("marian", "fairseq.model", "fairseq-bpe.model", "marian.vocab.json", source_lang="en", target_lang="fr"),
    _marian("marian-bpe", "fairseq-bpe.model", "fairseq.model", "marian.vocab.json"),
    _marian("marian-kept", "t5.model", "albert.model", "marian-kept.vocab.json", clean_up_tokenization_spaces=True),
    _marian("marian-added", "fairseq.model", "fairseq.model", "marian.vocab.json", added_tokens_decoder={
        "1": _token("</s>"), "2": _token("<unk>"), "3": _token("<pad>", lstrip=True, rstrip=True),
        "900": _token("new_word", special=False, lstrip=True),
    }, additional_special_tokens=[">>fra<<"]),
    *(case for case in tokenizer_classes.CASES if case["name"] in LANGUAGES),
]  # fmt: skip


def write(folder: Path, files: Path) -> None:
    """Writes lists of ids into `files`, cases and goldens into `folder`."""
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        if not (files / name).exists():
            make(files / name)
    readable.write(folder / "cases.json", CASES)
    readable.write(folder / "texts.json", TEXTS)
    answers = json.dumps({case["name"]: _answers(case, files) for case in CASES}, ensure_ascii=False)
    (folder / "answers.json.gz").write_bytes(gzip.compress(answers.encode(), mtime=0))


def _answers(case: dict, files: Path) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer_classes._assemble(case, files, Path(scratch))
        tokenizer = AutoTokenizer.from_pretrained(scratch)
    draw = random.Random(7)
    size = max(tokenizer.get_vocab().values()) + 1
    decoded = [draw.sample(range(size), min(size, 30)) for _ in range(20)]
    return {
        "special": {role: tokenizer_classes._special(tokenizer, role) for role in ROLES},
        "texts": [tokenizer(text)["input_ids"] for text in TEXTS],
        "written": [_written(tokenizer, ids) for ids in [tokenizer(text)["input_ids"] for text in TEXTS] + decoded],
        "languages": {code: _language(tokenizer, code) for code in LANGUAGES.get(case["name"], [])},
    }


def _written(tokenizer, ids: list[int]) -> dict:
    whole, plain = tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)
    bare = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {"ids": ids, "whole": whole, "plain": plain, "bare": bare}


def _language(tokenizer, code: str) -> dict:
    """What the translation pipeline gives the model for a text in a language, and begins answers with."""
    inputs = [
        tokenizer._build_translation_inputs(text, return_tensors=None, src_lang=code, tgt_lang=code)
        for text in TEXTS[:12]
    ]
    return {"token": inputs[0]["forced_bos_token_id"], "texts": [found["input_ids"] for found in inputs]}
