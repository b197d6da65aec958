"""The WordPiece tokenizer of the tiny checkpoints: a few hundred pieces, chosen and not trained."""

from pathlib import Path

import readable

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LATIN = "abcdefghijklmnopqrstuvwxyz"
CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
IDEOGRAPHS = "今天气很好日本語中文"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[]_~€"
WORDS = """the a an of to and in is it for on with that this was are as by be at from not have you we they
how what where when who why which can will good bad quick brown fox jumps over lazy dog cat house weather
today model text query document search small large fast slow time world love hate film great terrible
der die das und ist nicht ein le la les une est el los es un que год мир hello""".split()
ENDINGS = ["##s", "##ed", "##ing", "##er", "##est", "##ly", "##tion", "##ness", "##able", "##en", "##ich", "##ой"]

MODEL_MAX_LENGTH = 48


def vocabulary() -> list[str]:
    """The pieces in the order of their ids."""
    letters = LATIN + "0123456789" + CYRILLIC
    pieces = [*SPECIAL, *PUNCTUATION, *IDEOGRAPHS, "😀", *letters, *(f"##{letter}" for letter in letters)]
    return list(dict.fromkeys([*pieces, *ENDINGS, *WORDS]))


def write(folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and vocab.txt into `folder`.

    tokenizer.json carries truncation and padding sections that everybody has to ignore, as real models do.
    """
    pieces = vocabulary()
    readable.write(folder / "tokenizer.json", _tokenizer(pieces))
    readable.write(folder / "tokenizer_config.json", configuration(MODEL_MAX_LENGTH))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


def configuration(model_max_length: int) -> dict:
    """The content of tokenizer_config.json."""
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": model_max_length,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }


def _tokenizer(pieces: list[str]) -> dict:
    def special(piece: str, type_id: int) -> dict:
        return {"SpecialToken": {"id": piece, "type_id": type_id}}

    def sequence(name: str, type_id: int) -> dict:
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 16},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [{"id": id, "content": piece, **flags} for id, piece in enumerate(SPECIAL)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, sequence("B", 1), special("[SEP]", 1)],
            "special_tokens": {
                piece: {"id": piece, "ids": [pieces.index(piece)], "tokens": [piece]} for piece in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: id for id, piece in enumerate(pieces)},
        },
    }
