#!/usr/bin/env python3
"""Times every family at one size, and prints multiply-accumulates per second beside BERT's.

    run.py [--precision f32|int8] [--shapes 1x16,1x128,8x128] [--rounds 5] [--families bert,t5,...]

Makes random checkpoints (768 wide, 12 heads, 4 layers) with transformers in the environment of the golden values, builds
the release binary, and runs `centuple bench` for one family after the other, round by round. A ratio is the median over the
rounds of a family's figure over BERT's of the same round.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "scripts" / "goldens"
FOLDER = Path(__file__).resolve().parent / "out"
BINARY = ROOT / "target" / "release" / "centuple"
sys.path.insert(0, str(ROOT / "scripts"))

import environment  # noqa: E402

VOCABULARY, WIDTH, HEADS, INNER, LAYERS, POSITIONS = 2000, 768, 12, 3072, 4, 512


def models() -> dict:
    """A maker for each family: of the same width, depth and, but for gated blocks, inner width."""
    import transformers as t

    bert = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
    }
    distilbert = {"vocab_size": VOCABULARY, "dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER}
    gated = bert | {"intermediate_size": 1152, "pad_token_id": 0, "local_attention": 128}
    t5 = {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": WIDTH // HEADS, "d_ff": INNER, "num_heads": HEADS}
    disentangled = bert | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
    buckets = {"position_buckets": 256, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
    bart = {
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "encoder_layers": LAYERS // 2,
        "decoder_layers": LAYERS // 2,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "encoder_ffn_dim": INNER,
        "decoder_ffn_dim": INNER,
        "max_position_embeddings": POSITIONS,
    }
    return {
        "bert": lambda: t.BertModel(t.BertConfig(**bert)),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(**bert | {"max_position_embeddings": POSITIONS + 2})),
        "distilbert": lambda: t.DistilBertModel(t.DistilBertConfig(**distilbert)),
        "electra": lambda: t.ElectraModel(t.ElectraConfig(**bert, embedding_size=WIDTH)),
        "albert": lambda: t.AlbertModel(t.AlbertConfig(**bert, embedding_size=128)),
        "mpnet": lambda: t.MPNetModel(t.MPNetConfig(**bert | {"max_position_embeddings": POSITIONS + 2})),
        "t5": lambda: t.T5EncoderModel(t.T5Config(**t5, num_layers=LAYERS)),
        "t5-gated": lambda: t.T5EncoderModel(t.T5Config(**t5, num_layers=LAYERS, feed_forward_proj="gated-gelu")),
        "modernbert": lambda: t.ModernBertModel(t.ModernBertConfig(**gated)),
        "deberta": lambda: t.DebertaModel(t.DebertaConfig(**disentangled, max_relative_positions=POSITIONS)),
        "deberta-v2": lambda: t.DebertaV2Model(t.DebertaV2Config(**disentangled | buckets)),
        "bart": lambda: t.BartForSequenceClassification(t.BartConfig(**bart)),
        "roformer": lambda: t.RoFormerModel(t.RoFormerConfig(**bert, embedding_size=WIDTH)),
    }


def make(name: str, maker) -> Path:
    """A folder with a random model and a tokenizer."""
    import torch

    folder = FOLDER / name
    if not folder.exists():
        torch.manual_seed(0)
        staging = FOLDER / f".{name}"
        maker().eval().save_pretrained(staging)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "crates" / "testkit" / "fixtures" / "tokenizer" / file, staging / file)
        staging.rename(folder)
    return folder


def time(folder: Path, arguments: argparse.Namespace) -> dict[str, dict]:
    """What `centuple bench` says, by shape."""
    command = [BINARY, "bench", folder, "--json", "--precision", arguments.precision, "--shapes", arguments.shapes]
    if arguments.isa:
        command += ["--isa", arguments.isa]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return {row["shape"]: row for row in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--shapes", default="1x16,1x128,8x128")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--families", help="some of them, by comma; BERT always runs")
    parser.add_argument("--isa")
    arguments = parser.parse_args()
    environment.enter(GOLDENS / "requirements.txt", GOLDENS / ".venv")
    subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=True)
    known = models()
    wanted = arguments.families.split(",") if arguments.families else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    FOLDER.mkdir(exist_ok=True)
    folders = {name: make(name, known[name]) for name in dict.fromkeys(["bert", *wanted])}
    rounds = [{name: time(folder, arguments) for name, folder in folders.items()} for _ in range(arguments.rounds)]
    shapes = arguments.shapes.split(",")
    print(f"| family | {' | '.join(f'{shape} ms | GMAC/s | of BERT' for shape in shapes)} |")
    print("|---" * (1 + 3 * len(shapes)) + "|")
    for name in folders:
        cells = []
        for shape in shapes:
            rows = [(one[name][shape], one["bert"][shape]) for one in rounds]
            milliseconds = statistics.median(row["median_ms"] for row, _ in rows)
            speed = statistics.median(row["gmacs"] for row, _ in rows)
            ratio = statistics.median(row["gmacs"] / bert["gmacs"] for row, bert in rows)
            cells.append(f"{milliseconds:.2f} | {speed:.0f} | {100 * ratio:.0f} %")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
