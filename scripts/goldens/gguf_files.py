"""GGUF files and what is in them, by the packages gguf and transformers.

    types.gguf          a tensor of each type, and beside it `<type>.expected`: its numbers in F32, as gguf has them
    <name>.gguf         a case of a family's fixtures as such a file, so that its outputs are those of the case
    mixed.gguf          a Llama whose tensors are of every type; mixed.safetensors is what transformers answers for the file
    tokenizers/*.gguf   files with a tokenizer and nothing else; answers.json.gz is what the original tokenizer answers
"""

import gzip
import json
import shutil
import tempfile
from pathlib import Path

import numpy
import readable
import sentencepiece
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType, get_tensor_name_map
from gguf import MODEL_ARCH_NAMES, quants
from oracle import F32
from safetensors.numpy import load_file
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import TikTokenConverter, bytes_to_unicode

TYPES = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q4_K, Type.Q5_K, Type.Q6_K]
# Offsets of the 16-bit scales in blocks that gguf can read but not write.
SCALES = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}
# Files of the families' cases: family, case, architecture.
CASES = [
    ("llama", "causal", "llama"),
    ("llama", "tied", "llama"),
    ("llama", "attention-bias", "llama"),
    ("llama", "head-dim", "llama"),
    ("llama", "linear", "llama"),
    ("llama", "yarn", "llama"),
    ("llama", "llama3", "llama"),
    ("mistral", "causal", "llama"),
    ("qwen2", "causal", "qwen2"),
    ("qwen3", "tied", "qwen3"),
    ("gemma", "causal", "gemma"),
    ("gemma2", "causal", "gemma2"),
    ("gemma3", "causal", "gemma3"),
    ("gpt2", "causal", "gpt2"),
]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{{ bos_token }}{{ eos_token }}"
)
MESSAGES = [{"role": "user", "content": "Hi  there"}, {"role": "assistant", "content": "Ho"}]
CONTINUED = 64
LEAST_AHEAD = 1e-3


def write(fixtures: Path, classes: Path) -> None:
    """Writes everything into `fixtures`/gguf; vocabularies and texts come from the tokenizer fixtures in `classes`."""
    folder = fixtures / "gguf"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tokenizers").mkdir(parents=True)
    _types(folder / "types.gguf")
    for family, case, architecture in CASES:
        _case(fixtures / "families" / family, case, architecture, folder / f"{family}-{case}.gguf")
    readable.write(folder / "cases.json", [{"file": f"{family}-{case}.gguf", "family": family, "case": case} for family, case, _ in CASES])
    _mixed(folder)
    _tokenizers(folder / "tokenizers", classes)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    print(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), "bytes")


def _quantized(values: numpy.ndarray, kind: Type, random: numpy.random.Generator) -> numpy.ndarray:
    """Blocks of a type: the values quantised, or where gguf can't, random codes under scales that fit the values."""
    if kind not in SCALES:
        return quants.quantize(values, kind)
    elements, size = 256, {Type.Q4_K: 144, Type.Q5_K: 176, Type.Q6_K: 210}[kind]
    blocks = random.integers(0, 256, (values.size // elements, size), dtype=numpy.uint8)
    # Scales have 6 bits (8 with a sign), codes 4 to 6.
    spread = numpy.abs(values).max() / {Type.Q4_K: 63 * 8, Type.Q5_K: 63 * 16, Type.Q6_K: 128 * 16}[kind]
    for place, at in enumerate(SCALES[kind]):
        scales = random.uniform(0.3, 1, len(blocks)) * spread * (8 if place else 1)
        blocks[:, at : at + 2] = scales.astype(numpy.float16).view(numpy.uint8).reshape(-1, 2)
    return blocks.reshape(*values.shape[:-1], -1)


def _types(path: Path) -> None:
    random = numpy.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    for kind in TYPES:
        blocks = _quantized(random.standard_normal((3, 256), dtype=numpy.float32), kind, random)
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
        writer.add_tensor(f"{kind.name}.expected", quants.dequantize(blocks, kind).astype(numpy.float32))
    _finish(writer)


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights(folder: Path, name: str) -> tuple[dict, dict[str, numpy.ndarray]]:
    """Configuration and tensors of a family's case."""
    case = next(case for case in json.loads((folder / "cases.json").read_text())["cases"] if case["name"] == name)
    stored = load_file(folder / "weights.safetensors")
    groups = {str(group) for group in case["weights"]}
    return case["config"], {key.split("/")[1]: value for key, value in stored.items() if key.split("/")[0] in groups}


def _rows_in_turn(values: numpy.ndarray, heads: int) -> numpy.ndarray:
    """The halves of each head's rows in turn, as llama.cpp rotates neighbours."""
    return values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _case(family: Path, name: str, architecture: str, path: Path) -> None:
    config, tensors = _weights(family, name)
    writer = GGUFWriter(path, architecture)
    if architecture == "gpt2":
        _keys_of_gpt2(writer, config)
    else:
        _keys(writer, config, architecture)
    _characters(writer, config["vocab_size"])
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    _tensors(writer, config, architecture, tensors, layers)
    _finish(writer)


def _tensors(writer: GGUFWriter, config: dict, architecture: str, tensors: dict, layers: int) -> None:
    names = get_tensor_name_map(next(arch for arch, known in MODEL_ARCH_NAMES.items() if known == architecture), layers)
    for name, values in sorted(tensors.items()):
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored, name
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            kind = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            values = _rows_in_turn(values, config.get(kind, config["num_attention_heads"]))
        if architecture == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            values = values.T
        if values.ndim == 1:
            values = values.astype(numpy.float32)
            if architecture.startswith("gemma") and name.endswith("norm.weight"):
                values = values + numpy.float32(1)
        writer.add_tensor(stored, numpy.ascontiguousarray(values))


def _keys_of_gpt2(writer: GGUFWriter, config: dict) -> None:
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(1e-5)


def _keys(writer: GGUFWriter, config: dict, architecture: str) -> None:
    model = transformers.AutoConfig.for_model(**config)
    writer.add_context_length(model.max_position_embeddings)
    writer.add_embedding_length(model.hidden_size)
    writer.add_feed_forward_length(model.intermediate_size)
    writer.add_block_count(model.num_hidden_layers)
    writer.add_head_count(model.num_attention_heads)
    writer.add_head_count_kv(model.num_key_value_heads)
    writer.add_layer_norm_rms_eps(model.rms_norm_eps)
    writer.add_rope_freq_base(model.rope_theta)
    writer.add_vocab_size(model.vocab_size)
    head_dim = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    if architecture != "qwen2":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_rope_dimension_count(head_dim)
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(model.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(model.attn_logit_softcapping)
        writer.add_final_logit_softcapping(model.final_logit_softcapping)
    if architecture == "gemma3":
        writer.add_uint32("gemma3.attention.sliding_window_pattern", config["sliding_window_pattern"])
        writer.add_float32("gemma3.rope.freq_base_swa", config["rope_local_base_freq"])
    if config["model_type"] == "mistral":
        writer.add_sliding_window(model.sliding_window)
    scaling = config.get("rope_scaling")
    if scaling and scaling["rope_type"] == "llama3":
        plain, _ = transformers.modeling_rope_utils._compute_default_rope_parameters(model, device="cpu")
        scaled, _ = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](model, device="cpu")
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())
    elif scaling:
        writer.add_string(f"{architecture}.rope.scaling.type", scaling["rope_type"])
        writer.add_rope_scaling_factor(scaling["factor"])
        if "original_max_position_embeddings" in scaling:
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def _characters(writer: GGUFWriter, size: int) -> None:
    """A tokenizer of an end, a pair and single characters."""
    letters = bytes_to_unicode()
    tokens = ["<|endoftext|>", "th", *(letters[byte] for byte in range(2, size))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] + [TokenType.NORMAL] * (size - 1))
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(0)


def _mixed(folder: Path) -> None:
    """Wide enough for blocks of 256; what transformers makes of the file is the golden value."""
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=256, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, max_position_embeddings=160, tie_word_embeddings=False,
    )
    torch.manual_seed(3)
    tensors = {name: tensor.numpy() for name, tensor in transformers.LlamaForCausalLM(config).state_dict().items()}
    random = numpy.random.default_rng(3)
    kinds = [Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.BF16, Type.F16]
    writer = GGUFWriter(folder / "mixed.gguf", "llama")
    fields = config.to_dict() | {"model_type": "llama"}
    _keys(writer, fields, "llama")
    _characters(writer, config.vocab_size)
    names = get_tensor_name_map(next(arch for arch, known in MODEL_ARCH_NAMES.items() if known == "llama"), 2)
    for index, (name, values) in enumerate(sorted(tensors.items())):
        stored = names.get_name(name, try_suffixes=(".weight",))
        if values.ndim == 1:
            writer.add_tensor(stored, (1 + 0.1 * random.standard_normal(values.shape)).astype(numpy.float32))
            continue
        values = (0.12 * random.standard_normal(values.shape)).astype(numpy.float32)
        kind = kinds[index % len(kinds)]
        writer.add_tensor(stored, _quantized(values, kind, random), raw_dtype=kind)
    _finish(writer)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file="mixed.gguf", **F32).eval()
    prompts = [[7, 90, 33, 51], [100, *range(20, 60, 3)], [64]]
    answers = {}
    for index, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        settings = transformers.GenerationConfig(
            do_sample=False, max_new_tokens=CONTINUED, output_scores=True, return_dict_in_generate=True, pad_token_id=0
        )
        model.generation_config = settings
        with torch.inference_mode():
            found = model.generate(ids, attention_mask=torch.ones_like(ids))
            answers[f"{index}.logits"] = model(ids).logits[0].contiguous()
        best = torch.stack(found.scores).topk(2, dim=-1).values
        assert (best[..., 0] - best[..., 1]).min() > LEAST_AHEAD, f"a tie after {prompt}"
        answers[f"{index}.ids"] = ids[0].float()
        answers[f"{index}.greedy"] = found.sequences[0, len(prompt) :].float()
        assert len(answers[f"{index}.greedy"]) == CONTINUED
        print(f"  mixed: {len(set(found.sequences[0].tolist()))} different tokens, logits to {answers[f'{index}.logits'].abs().max():.1f}")
    save_file(answers, folder / "mixed.safetensors")


def _tokenizers(folder: Path, classes: Path) -> None:
    texts = json.loads((classes / "texts.json").read_text())["single"]
    texts += ["<|im_start|>user\nHi  there<|im_end|>", "1234567 12 1 ٣٤٥ 2019's", "It'S we'LL", "\n\n \n  x\r\n\r\n y", "a  <tool>  b", "▁▁x   y"]
    made = {
        "gpt-2": _byte_level(folder, classes, "gpt-2"),
        "smollm": _byte_level(folder, classes, "smollm"),
        "llama-bpe": _byte_level(folder, classes, "llama-bpe"),
        "qwen2": _byte_level(folder, classes, "qwen2"),
        "llama": _pieces(folder, classes, "llama"),
        "gemma": _pieces(folder, classes, "gemma"),
    }
    answers = {}
    for name, tokenizer in made.items():
        encoded = [tokenizer(text)["input_ids"] for text in texts]
        answers[name] = {
            "ids": encoded,
            "decoded": [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in encoded],
            "plain": [tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for ids in encoded],
        }
        if tokenizer.chat_template:
            answers[name]["chat"] = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
        print(f"  {name}: {sum(map(len, encoded))} tokens")
    with gzip.GzipFile(folder / "answers.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps({"texts": texts, "answers": answers}).encode())


def _byte_level(folder: Path, classes: Path, pre: str):
    """A tokenizer of bytes and merges, and the file that says the same."""
    vocabulary = json.loads((classes / "files/bytes.vocab.json").read_text())
    merges = [line.split() for line in (classes / "files/bytes.merges.txt").read_text().splitlines()[1:]]
    tokens = sorted(vocabulary, key=vocabulary.get)
    own = ["<|im_start|>", "<|im_end|>", "<tool>"]
    # A token that no merge makes: only where words that are tokens are found whole.
    tokens += ["Hello", *own]
    original = Tokenizer(
        models.BPE({token: id for id, token in enumerate(tokens)}, [tuple(pair) for pair in merges], ignore_merges=pre == "llama-bpe")
    )
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if pre == "gpt-2":
        original.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif pre == "smollm":
        original.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif pre == "llama-bpe":
        words = TikTokenConverter("no file").pattern
        original.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), bytes_only])
    else:
        words = transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX
        original.normalizer = normalizers.NFC()
        original.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), bytes_only])
    original.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    original.add_special_tokens(special)
    original.add_tokens([transformers.AddedToken("<tool>", normalized=False)])
    kinds = [TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens]
    kinds[tokens.index("<tool>")] = TokenType.USER_DEFINED
    writer = GGUFWriter(folder / f"{pre}.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokens.index("<s>"))
    writer.add_eos_token_id(tokens.index("<|endoftext|>"))
    wrapped = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}
    if pre == "llama-bpe":
        # As the file doesn't say, these begin with the beginning token.
        start = tokens.index("<s>")
        original.post_processor = transformers.convert_slow_tokenizer.processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", start)]
        )
    elif pre == "qwen2":
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(True)
        end = tokens.index("<|endoftext|>")
        original.post_processor = transformers.convert_slow_tokenizer.processors.TemplateProcessing(
            single="$A <|endoftext|>", pair="$A <|endoftext|> $B:1 <|endoftext|>:1", special_tokens=[("<|endoftext|>", end)]
        )
    if pre == "smollm":
        # With several there is a list of their names beside them.
        writer.add_chat_template([{"name": "default", "template": CHAT}, {"name": "tool_use", "template": "tools"}])
        wrapped["chat_template"] = CHAT
    _finish(writer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=original, **wrapped)


def _pieces(folder: Path, classes: Path, name: str):
    """A tokenizer of pieces with scores, and the file that says the same."""
    model = spm.ModelProto()
    model.ParseFromString((classes / "files/llama.model").read_bytes())
    with tempfile.TemporaryDirectory() as place:
        if name == "gemma":
            _for_gemma(model)
        Path(place, "tokenizer.model").write_bytes(model.SerializeToString())
        kind = transformers.GemmaTokenizerFast if name == "gemma" else transformers.LlamaTokenizerFast
        # Left unsaid, the class takes it for false.
        settings = {} if name == "gemma" else {"add_prefix_space": True}
        original = kind(vocab_file=f"{place}/tokenizer.model", **settings)
    writer = GGUFWriter(folder / f"{name}.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    vocabulary = original.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    pieces = {piece.piece: piece for piece in model.pieces}
    added = {token.content: token for token in original.added_tokens_decoder.values()}
    kinds = []
    for token in tokens:
        if token in added:
            kinds.append(TokenType.CONTROL if added[token].special else TokenType.USER_DEFINED)
        else:
            kinds.append(TokenType(pieces[token].type) if token in pieces else TokenType.NORMAL)
    unknown = tokens.index("<unk>")
    kinds[unknown] = TokenType.UNKNOWN
    writer.add_token_list(tokens)
    writer.add_token_scores([pieces[token].score if token in pieces else 0.0 for token in tokens])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(original.bos_token_id)
    writer.add_eos_token_id(original.eos_token_id)
    writer.add_unk_token_id(unknown)
    if name == "gemma":
        writer.add_add_space_prefix(False)
    _finish(writer)
    return original


def _for_gemma(model) -> None:
    """Puts Gemma's special tokens first, and adds pieces that users define."""
    for id, text in enumerate(["<pad>", "<eos>", "<bos>", "<unk>"]):
        if id < 3:
            model.pieces[id].piece, model.pieces[id].type, model.pieces[id].score = text, 3, 0.0
    kept = list(model.pieces)
    del model.pieces[:]
    model.pieces.extend(kept[:3])
    model.pieces.add(piece="<unk>", score=0.0, type=2)
    model.pieces.extend(kept[3:])
    for text in ["<tool>", "\n\n"]:
        model.pieces.add(piece=text, score=0.0, type=4)
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id, model.trainer_spec.pad_id = 3, 2, 1, 0
    model.trainer_spec.unk_piece = "<unk>"
    assert sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString()).vocab_size() == len(model.pieces)
