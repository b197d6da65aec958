"""Goldens of the tokenizer classes: tiny tokenizers of every kind, and what transformers makes of their files.

Vocabularies are trained on a few sentences and kept in `files/`: training breaks ties at random, so a file that is
there already stays. A case is a recipe for a folder (files by name, JSON to write); `answers.json.gz`
has what the class that transformers chooses for it answers.
"""

import gzip
import json
import random
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy
import readable
import sentencepiece
import texts
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, TokenClassificationPipeline
from transformers.pipelines.token_classification import AggregationStrategy
from transformers.utils import logging

ROLES = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]

OWN = [
    "The harbour wakes before the town does; boats come home with the first light, and the gulls know it.",
    "Walking, walked, walks: a machine that reads must first cut unhappiness and rereading into pieces.",
    "Prices rose by 12,5 percent in 2019, fell by 3,5 percent in 2020, and haven't moved since 1,000 days.",
    "Who wrote the letter? It's the baker's son, who'll open the café at 7:30, won't he?",
]

QUESTION = "Who opens the café?"
LONG = " ".join(OWN)

SINGLE = [
    "",
    " ",
    "   \t\n ",
    "a",
    "Hello, world!",
    "The harbour wakes.",
    "  leading and trailing  ",
    "two  spaces   three\tand\ttabs\r\nlines\n\n",
    "no-break\u00a0space, ideographic\u3000space, thin\u2009space, line\u2028separator",
    "zero\u200bwidth \u200djoiners\u2060 and \ufeffmarks",
    "control \u0000\u0001\u0007\u007f\u0085 characters",
    "replacement \ufffd and private \ue000 use",
    "Café CAFÉ cafe\u0301 CAFE\u0301 coöperate naïve Ångström \u212bngström",
    "e\u0301\u0323\u0308 stacked \u0301alone",
    "\ufb01ne \ufb02ow \uff21\uff22\uff23 \u2460 \u00bd x\u00b2 \u2122",
    "İstanbul ıI ǅ ß ẞ STRASSE Σίσυφος ΣΊΣΥΦΟΣ",
    "Учёные обнаружили Й и\u0306 извержения",
    "研究人员发现，睡眠不足。",
    "昨日、友達と図書館へ。ｶﾀｶﾅ カタカナ が か\u3099",
    "오늘은 날씨가 \u1112\u1161\u11ab\u1100\u1173\u11af",
    "تعلمت الطفلة العَزْفَ \u200fعلى العود",
    "הרכבת הָרִאשׁוֹנָה יוצאת",
    "हमारे गाँव में क्षेत्र",
    "วันนี้อากาศดีมาก",
    "Kỳ thi năm nay khó hơn",
    "🙂",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 thumbs 🏳️‍🌈",
    "tea🍵and☕️coffee",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 beyond the plane",
    "``quoted'' and \"quoted\" and “quoted” and 'quoted'",
    "don't can't it's we'll I'm you've they're he'd DON'T",
    "9,9 and 1,000,000 and 3.14e-10 and 12/31 and 50%",
    "a,b;c:d.e!f?g(h)i[j]k{l}m",
    "snake_case camelCase https://example.org/path?query=1&other=two#part",
    'fn main() { println!("{:?}", x); }',
    "...!!!???---((()))",
    "<s> </s> <pad> <unk> <mask>",
    "a<mask>b <mask> c  <mask>  d<mask>",
    "[CLS] [SEP] [PAD] [UNK] [MASK]",
    "a[MASK]b [MASK] c  [MASK]  d[MASK].",
    "[mask] [Mask] [ MASK ] <Mask> < mask >",
    "<cls> <sep> <eop> <eod> <|endoftext|> text<|endoftext|>text",
    "<extra_id_0> walks <extra_id_1>.<extra_id_99><extra_id_100>",
    "en_XX de_DE words en_XX",
    "<s>NOTUSED </s>NOTUSED <unk>NOTUSED",
    "▁lower one eighth ▁▁ block",
    "Ġ Ċ ## ##ing ing",
    "<0x0A> <0xE2>",
    "new_word NEW_WORD a new_wordy new_word",
    "x" * 130,
    "unhappiness " * 12,
    "Pneumonoultramicroscopicsilicovolcanoconiosis",
    "\u4e00\u9fff\U00020000 ideographs",
    "tab\tMASK\u00ad soft-hyphen",
]

PAIRS = [
    ["", ""],
    ["", "walks"],
    ["walks", ""],
    ["The harbour wakes.", "Who wrote the letter?"],
    [" one", " two "],
    ["<mask> 研究", "[MASK] cafe\u0301"],
    ["Hello, world!", "Учёные 🙂"],
]

WINDOWS = [
    {"first": LONG, "max_tokens": 24, "stride": 0, "split": "first"},
    {"first": LONG, "max_tokens": 24, "stride": 7, "split": "first"},
    {"first": LONG, "max_tokens": 30, "stride": 11, "split": "first", "side": "left"},
    {"first": LONG, "max_tokens": 4000, "stride": 8, "split": "first"},
    {"first": QUESTION, "second": LONG, "max_tokens": 64, "stride": 16, "split": "second"},
    {"first": LONG, "second": QUESTION, "max_tokens": 64, "stride": 9, "split": "first"},
]

# What the normaliser of the sentencepiece models replaces: enough for every branch, small enough to commit.
RULES = {
    "\u00a0": " ", "\u3000": " ", "\u2009": " ", "\t": " ", "\n": " ", "\r": " ", "\ufb01": "fi", "\uff21": "A",
    "\uff22": "B", "\u2460": "1", "\u00bd": "1/2", "\u212b": "\u00c5", "e\u0301": "\u00e9", "か\u3099": "が",
    "\u200b": " ", "\u007f": "", "\u0007": "", "\u2122": "TM", "ｶ": "カ", "\ufeff": "",
}  # fmt: skip


def write(folder: Path) -> None:
    """Writes vocabularies, texts and the goldens of every case into `folder`."""
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, train in FILES.items():
        if not (files / name).exists():
            train(files / name)
    for name, case in SAVED.items():
        if not (files / name).exists():
            _save(case, files, files / name)
    readable.write(folder / "cases.json", CASES)
    readable.write(folder / "texts.json", {"single": SINGLE, "pairs": PAIRS, "windows": WINDOWS})
    answers = json.dumps({case["name"]: _answers(case, files) for case in CASES}, ensure_ascii=False)
    (folder / "answers.json.gz").write_bytes(gzip.compress(answers.encode(), mtime=0))


def _corpus() -> list[str]:
    return [*texts.SENTENCES, *OWN, *OWN]


def _word_pieces(special: list[str], lower: bool):
    def train(path: Path) -> None:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        size = 900
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(_corpus(), trainer)
        pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        path.write_text("".join(f"{piece}\n" for piece, _ in pieces), encoding="utf-8")

    return train


def _byte_level(path: Path) -> None:
    """Trains both files of a byte-level vocabulary, whatever `path` is."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    folder = path.parent
    (folder / "bytes.vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    merges = "".join(f"{first} {second}\n" for first, second in model["merges"])
    (folder / "bytes.merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")


def _sentencepiece(**options):
    def train(path: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            rules = Path(scratch) / "rules.tsv"
            points = lambda text: " ".join(f"{ord(character):X}" for character in text)  # noqa: E731
            rules.write_text("".join(f"{points(old)}\t{points(new)}\n" for old, new in RULES.items()))
            normalizer = {"normalization_rule_name": "identity"}
            if options.pop("rules", True):
                normalizer = {"normalization_rule_tsv": str(rules)}
            settings = {"vocab_size": 420, "hard_vocab_limit": False, "character_coverage": 0.98} | normalizer | options
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(_corpus()),
                model_prefix=str(Path(scratch) / "trained"),
                minloglevel=2,
                num_threads=1,
                **settings,
            )
            shutil.copyfile(Path(scratch) / "trained.model", path)

    return train


FILES = {
    "bert.vocab.txt": _word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], lower=True),
    "cased.vocab.txt": _word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], lower=False),
    "mpnet.vocab.txt": _word_pieces(["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"], lower=True),
    "bytes.vocab.json": _byte_level,
    "bytes.merges.txt": _byte_level,
    "fairseq.model": _sentencepiece(model_type="unigram"),
    "fairseq-bpe.model": _sentencepiece(model_type="bpe"),
    "albert.model": _sentencepiece(
        model_type="unigram", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols="[CLS],[SEP],[MASK]"
    ),
    "t5.model": _sentencepiece(
        model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols="walks"
    ),
    "deberta.model": _sentencepiece(
        model_type="unigram", pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]",
        eos_piece="[SEP]", unk_piece="[UNK]",
    ),
    "xlnet.model": _sentencepiece(
        model_type="unigram", unk_id=0, bos_id=1, eos_id=2, control_symbols="<cls>,<sep>,<pad>,<mask>,<eod>",
        user_defined_symbols="<eop>",
    ),
    "llama.model": _sentencepiece(
        model_type="bpe", byte_fallback=True, vocab_size=640, rules=False, remove_extra_whitespaces=False,
        split_digits=True,
    ),
}  # fmt: skip

BYTES = {"vocab.json": "bytes.vocab.json", "merges.txt": "bytes.merges.txt"}


def _case(name: str, files: dict, class_name: str | None = None, **config) -> dict:
    """A folder with `files` and a tokenizer_config.json; no such file if nothing is to be in it."""
    if class_name:
        config = {"tokenizer_class": class_name} | config
    return {"name": name, "files": files, "write": {"tokenizer_config.json": config} if config else {}}


def _token(content: str, **flags) -> dict:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content} | plain | flags


def _with(case: dict, **files) -> dict:
    """The case with more JSON files; in their names `__` is a dot."""
    return case | {"write": case["write"] | {name.replace("__", "."): value for name, value in files.items()}}


CASES = [
    _with(_case("bert-model-type", {"vocab.txt": "bert.vocab.txt"}), config__json={"model_type": "bert"}),
    _case("bert-cased", {"vocab.txt": "cased.vocab.txt"}, "BertTokenizer", do_lower_case=False),
    _case("bert-accents", {"vocab.txt": "cased.vocab.txt"}, "BertTokenizerFast", do_lower_case=False,
          strip_accents=True, tokenize_chinese_chars=False, clean_up_tokenization_spaces=False),
    _case("bert-plain", {"vocab.txt": "cased.vocab.txt"}, "BertTokenizer", do_basic_tokenize=False),
    _with(
        _case("bert-added", {"vocab.txt": "bert.vocab.txt"}, "BertTokenizer", mask_token="[MASK]"),
        special_tokens_map__json={"mask_token": _token("[MASK]", lstrip=True), "additional_special_tokens": ["<mask>"]},
        added_tokens__json={"new_word": 1000, "<mask>": 1001},
    ),
    _case("distilbert", {"vocab.txt": "bert.vocab.txt"}, "DistilBertTokenizer", do_lower_case=True),
    _case("electra", {"vocab.txt": "bert.vocab.txt"}, "ElectraTokenizer", strip_accents=False),
    _case("funnel", {"vocab.txt": "bert.vocab.txt"}, "FunnelTokenizer", unk_token="[UNK]", cls_token="[CLS]",
          sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]"),
    _case("mpnet", {"vocab.txt": "mpnet.vocab.txt"}, "MPNetTokenizer"),
    _case("mpnet-cased", {"vocab.txt": "mpnet.vocab.txt"}, "MPNetTokenizer", do_lower_case=False),
    _case("roberta", BYTES, "RobertaTokenizer"),
    _case("roberta-prefix", BYTES, "RobertaTokenizer", add_prefix_space=True, trim_offsets=False),
    _case("roberta-added", BYTES, "RobertaTokenizer", added_tokens_decoder={
        "0": _token("<s>", normalized=True), "4": _token("<mask>", lstrip=True),
        "600": _token("new_word", special=False, normalized=True, single_word=True), "601": _token("[MASK]x"),
    }, mask_token="<mask>", additional_special_tokens=["[MASK]x", "<mask>"]),
    _case("bart", BYTES, "BartTokenizer"),
    _with(_case("longformer-model-type", BYTES), config__json={"model_type": "longformer"}),
    _case("gpt2", BYTES, "GPT2Tokenizer", pad_token="[PAD]", sep_token="<sep>"),
    _case("gpt2-bos", BYTES, "GPT2Tokenizer", add_bos_token=True, add_prefix_space=True),
    _case("deberta", BYTES, "DebertaTokenizer"),
    _case("albert", {"spiece.model": "albert.model"}, "AlbertTokenizer"),
    _case("albert-cased", {"spiece.model": "albert.model"}, "AlbertTokenizer", do_lower_case=False, keep_accents=True),
    _case("xlm-roberta", {"sentencepiece.bpe.model": "fairseq.model"}, "XLMRobertaTokenizer",
          additional_special_tokens=["<mask>", "en_XX"]),
    _with(
        _case("xlm-roberta-bpe", {"sentencepiece.bpe.model": "fairseq-bpe.model"}),
        config__json={"model_type": "xlm-roberta"}, added_tokens__json={"new_word": 450},
    ),
    _case("camembert", {"sentencepiece.bpe.model": "fairseq.model"}, "CamembertTokenizer"),
    _case("mbart", {"sentencepiece.bpe.model": "fairseq.model"}, "MBartTokenizer", src_lang="de_DE"),
    _case("mbart50", {"sentencepiece.bpe.model": "fairseq.model"}, "MBart50Tokenizer"),
    _case("nllb", {"sentencepiece.bpe.model": "fairseq.model"}, "NllbTokenizer"),
    _case("nllb-legacy", {"sentencepiece.bpe.model": "fairseq.model"}, "NllbTokenizer", legacy_behaviour=True,
          src_lang="deu_Latn"),
    _case("t5", {"spiece.model": "t5.model"}, "T5Tokenizer"),
    _case("t5-new", {"spiece.model": "t5.model"}, "T5Tokenizer", legacy=False, extra_ids=5),
    _case("t5-bare", {"spiece.model": "t5.model"}, "T5Tokenizer", add_prefix_space=False, extra_ids=0),
    _with(
        _case("deberta-v2", {"spm.model": "deberta.model"}, "DebertaV2Tokenizer", do_lower_case=False),
        added_tokens__json={"[MASK]": 420},
    ),
    _case("deberta-v2-lower", {"spm.model": "deberta.model"}, "DebertaV2Tokenizer", do_lower_case=True,
          split_by_punct=True),
    _case("big-bird", {"spiece.model": "albert.model"}, "BigBirdTokenizer"),
    _case("xlnet", {"spiece.model": "xlnet.model"}, "XLNetTokenizer"),
    _case("llama", {"tokenizer.model": "llama.model"}, "LlamaTokenizer"),
    _case("llama-new", {"tokenizer.model": "llama.model"}, "LlamaTokenizer", legacy=False, add_eos_token=True,
          pad_token="<pad>"),
    _case("llama-bare", {"tokenizer.model": "llama.model"}, "LlamaTokenizer", add_prefix_space=False,
          add_bos_token=False),
]  # fmt: skip

# What classes change in a tokenizer.json: made from the folder of one case, opened with the configuration of another.
SAVED = {
    "bert.tokenizer.json": "bert-model-type",
    "cased.tokenizer.json": "bert-cased",
    "mpnet.tokenizer.json": "mpnet-cased",
    "bytes.tokenizer.json": "roberta",
    "bytes-prefix.tokenizer.json": "roberta-prefix",
    "mbart.tokenizer.json": "mbart",
    "nllb.tokenizer.json": "nllb",
    "llama.tokenizer.json": "llama",
    "t5.tokenizer.json": "t5",
}


def _saved(name: str, file: str, class_name: str, files: dict | None = None, **config) -> dict:
    return _case(name, {"tokenizer.json": file} | (files or {}), class_name, **config)


CASES += [
    _saved("json-bert", "cased.tokenizer.json", "BertTokenizer"),
    _saved("json-electra-cased", "bert.tokenizer.json", "ElectraTokenizer", do_lower_case=False),
    _saved("json-mpnet", "mpnet.tokenizer.json", "MPNetTokenizer", strip_accents=False),
    _saved("json-roberta", "bytes-prefix.tokenizer.json", "RobertaTokenizer"),
    _saved("json-longformer", "bytes.tokenizer.json", "LongformerTokenizer", add_prefix_space=True, trim_offsets=False),
    _saved("json-generic", "bytes-prefix.tokenizer.json", "PreTrainedTokenizerFast", mask_token="<mask>",
           pad_token="<new>"),
    _saved("json-mbart", "mbart.tokenizer.json", "MBartTokenizer", src_lang="fr_XX"),
    _saved("json-nllb", "nllb.tokenizer.json", "NllbTokenizer", src_lang="fra_Latn"),
    _saved("json-llama", "llama.tokenizer.json", "LlamaTokenizer", add_bos_token=False, add_eos_token=True),
    _saved("json-llama-bare", "llama.tokenizer.json", "LlamaTokenizer", {"tokenizer.model": "llama.model"},
           add_prefix_space=False),
    _saved("json-t5-bare", "t5.tokenizer.json", "T5Tokenizer", {"spiece.model": "t5.model"}, add_prefix_space=False),
    _with(
        _saved("json-added", "bytes.tokenizer.json", "RobertaTokenizer", mask_token="<mask>"),
        special_tokens_map__json={"mask_token": "[MASK]", "cls_token": _token("[CLS]")},
        added_tokens__json={"new_word": 600},
    ),
]  # fmt: skip


def _save(case: str, files: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _assemble(next(found for found in CASES if found["name"] == case), files, folder)
        AutoTokenizer.from_pretrained(folder).save_pretrained(folder / "saved")
        saved = json.loads((folder / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps(saved, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _assemble(case: dict, files: Path, folder: Path) -> None:
    for name, file in case["files"].items():
        shutil.copyfile(files / file, folder / name)
    for name, value in case["write"].items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


def _answers(case: dict, files: Path) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _assemble(case, files, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    draw = random.Random(7)
    size = max(tokenizer.get_vocab().values()) + 1
    decoded = [draw.sample(range(size), min(size, 30)) for _ in range(3)]
    return {
        "class": type(tokenizer).__name__,
        "vocabulary_size": size,
        "special": {role: _special(tokenizer, role) for role in ROLES},
        "single": [_encoding(tokenizer, text, None) for text in SINGLE],
        "pairs": [_encoding(tokenizer, *pair) for pair in PAIRS],
        "windows": [_windows(tokenizer, window) for window in WINDOWS],
        "decoded": [{"ids": ids, **_decoded(tokenizer, ids)} for ids in decoded],
    }


def _special(tokenizer, role: str):
    token = getattr(tokenizer, f"{role}_token")
    return None if token is None else [token, tokenizer.convert_tokens_to_ids(token)]


def _decoded(tokenizer, ids: list[int]) -> dict:
    return {"text": tokenizer.decode(ids), "plain": tokenizer.decode(ids, skip_special_tokens=True)}


def _encoding(tokenizer, first: str, second: str | None) -> dict:
    found = tokenizer(first, second, return_offsets_mapping=True, return_special_tokens_mask=True)
    return _tokens(tokenizer, found.encodings[0], [first, second]) | _decoded(tokenizer, found["input_ids"])


def _windows(tokenizer, window: dict) -> list[dict]:
    tokenizer.truncation_side = window.get("side", "right")
    second = window.get("second")
    found = tokenizer(
        window["first"], second, truncation=f"only_{window['split']}", max_length=window["max_tokens"],
        stride=window["stride"], return_overflowing_tokens=True,
    )  # fmt: skip
    return [_tokens(tokenizer, encoding, [window["first"], second]) for encoding in found.encodings]


def _tokens(tokenizer, encoding, origins: list[str | None]) -> dict:
    """One number a token: ids, segments, words (-1: none), texts (-1: none), begins and ends, and where a word goes on."""
    words = [-1 if word is None else word for word in encoding.word_ids]
    sequences = [-1 if sequence is None else sequence for sequence in encoding.sequence_ids]
    result = {"ids": encoding.ids, "words": words}
    if any(encoding.type_ids):
        result["type_ids"] = encoding.type_ids
    result["texts"] = sequences
    result["starts"] = [start for start, _ in encoding.offsets]
    result["ends"] = [end for _, end in encoding.offsets]
    assert all((text < 0) == bool(special) for text, special in zip(sequences, encoding.special_tokens_mask))
    result["continued"] = sorted(index for text in (0, 1) for index in _continued(tokenizer, encoding, origins, text))
    return result


def _continued(tokenizer, encoding, origins: list[str | None], text: int) -> list[int]:
    """The tokens of a text that the token-classification pipeline joins to the one before."""
    pipeline = TokenClassificationPipeline.__new__(TokenClassificationPipeline)
    pipeline.tokenizer, pipeline.framework = tokenizer, "pt"
    others = numpy.array([sequence != text for sequence in encoding.sequence_ids])
    entities = pipeline.gather_pre_entities(
        origins[text] or "", numpy.array(encoding.ids), numpy.zeros((len(encoding.ids), 1)), encoding.offsets, others,
        AggregationStrategy.SIMPLE,
    )  # fmt: skip
    return [entity["index"] for entity in entities if entity["is_subword"]]
