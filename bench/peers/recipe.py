"""How a model folder wants text to be cut and its answer to be pooled, the same for every peer."""

import json
from pathlib import Path

import numpy
from tokenizers import Tokenizer


class Recipe:
    """Tokenizer, longest sequence and pooling of one folder.

    Sentence-transformers folders say both; elsewhere the model's positions are the limit, and the mean is taken.
    """

    def __init__(self, model: Path):
        config = _read(model / "config.json")
        declared = _read(model / "tokenizer_config.json").get("model_max_length", config["max_position_embeddings"])
        longest = _read(model / "sentence_bert_config.json").get("max_seq_length")
        self.longest = int(longest or min(declared, config["max_position_embeddings"]))
        pooling = _read(model / "1_Pooling" / "config.json")
        self._first = pooling.get("pooling_mode_cls_token", False)
        if pooling and not (self._first or pooling.get("pooling_mode_mean_tokens")):
            raise ValueError(f"{model}/1_Pooling asks for a pooling other than the mean and the first token")
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.longest)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The token ids of each text, cut."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]

    def pool(self, hidden: numpy.ndarray, mask: numpy.ndarray) -> numpy.ndarray:
        """[batch, tokens, hidden] and the mask to one vector a sequence, [batch, hidden]."""
        if self._first:
            return hidden[:, 0]
        weights = (mask / mask.sum(1, keepdims=True)).astype(numpy.float32)
        return (weights[:, None, :] @ hidden)[:, 0]


def pad(sequences: list[list[int]]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Ids and mask [batch, longest], padded with 0 at the end."""
    shape = (len(sequences), max(map(len, sequences)))
    ids, mask = numpy.zeros(shape, numpy.int64), numpy.zeros(shape, numpy.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}
