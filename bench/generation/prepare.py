"""Makes of a checkpoint what a peer reads: `prepare.py ARTEFACT MODEL FOLDER`. Runs in its own process."""

import json
import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "peers"))
import prepared  # noqa: E402


def random_gpt2(model: Path, target: Path) -> None:
    """Writes a GPT-2 of 124 million random weights, with the tokenizer of `model`, its vocabulary filled up."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config()
    GPT2LMHeadModel(config).eval().save_pretrained(target)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    known = tokenizer["model"]["vocab"]
    known.update({f"<filler {index}>": index for index in range(len(known), config.vocab_size)})
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(model / "tokenizer_config.json", target / "tokenizer_config.json")


def gguf_f32(model: Path, target: Path) -> None:
    """Writes a Llama checkpoint as GGUF, with its tokens and merges."""
    import gguf
    import numpy
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    heads, pairs = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(str(target), "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(pairs)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _tokens(writer, json.loads((model / "tokenizer.json").read_text()))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, weight in load_file(model / "model.safetensors").items():
        # llama.cpp rotates neighbours, transformers the halves of a head.
        for part, count in (("q_proj", heads), ("k_proj", pairs)):
            if part in name:
                halves = weight.reshape(count, 2, -1, weight.shape[-1])
                weight = numpy.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)
        found = names.get_name(name, try_suffixes=(".weight",))
        writer.add_tensor(found, weight.astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tokens(writer, tokenizer: dict) -> None:
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda entry: entry[1])
    special = {entry["id"] for entry in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if index in special else 1 for _, index in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])


def gguf_quantised(kind: str):
    """A maker of the GGUF file in another type, by llama.cpp's own quantisation."""

    def make(model: Path, target: Path) -> None:
        import llama_cpp

        plain = prepared.artefact(gguf_f32, "f32.gguf", model, target.parent)
        settings = llama_cpp.llama_model_quantize_default_params()
        settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
        if llama_cpp.llama_model_quantize(str(plain).encode(), str(target).encode(), settings):
            sys.exit(f"llama.cpp makes no {kind} of {plain}")

    return make


def convert(model: Path, target: Path) -> None:
    """Writes the folder that CTranslate2 reads."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(model)).convert(str(target), force=True)


def export(model: Path, target: Path) -> None:
    """Writes a GPT-2 as ONNX: new tokens and the keys and values of each layer in, logits of the last token and all
    keys and values out."""
    import torch
    from gpt2_module import Gpt2
    from transformers import GPT2LMHeadModel

    source = GPT2LMHeadModel.from_pretrained(model, dtype=torch.float32).eval()
    module = Gpt2(source).eval()
    layers = source.config.n_layer
    past = [torch.zeros(1, module.heads, 3, module.head_dim) for _ in range(2 * layers)]
    ids = torch.ones(1, 2, dtype=torch.int64)
    into = [f"past.{index}" for index in range(2 * layers)]
    out = [f"present.{index}" for index in range(2 * layers)]
    free = {"input_ids": {1: "new"}} | {name: {2: "past"} for name in into} | {name: {2: "all"} for name in out}
    torch.onnx.export(
        module,
        (ids, *past),
        target,
        input_names=["input_ids", *into],
        output_names=["logits", *out],
        dynamic_axes=free,
        opset_version=17,
        dynamo=False,
    )


def quantise(model: Path, target: Path) -> None:
    """Writes the ONNX file with dynamic int8: weights per output channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = prepared.artefact(export, "f32.onnx", model, target.parent)
    quantize_dynamic(str(plain), str(target), weight_type=QuantType.QInt8, per_channel=True)


ARTEFACTS = {
    "gpt2": random_gpt2,
    "f32.gguf": gguf_f32,
    "q4_0.gguf": gguf_quantised("Q4_0"),
    "q4_1.gguf": gguf_quantised("Q4_1"),
    "q8_0.gguf": gguf_quantised("Q8_0"),
    "ctranslate2": convert,
    "f32.onnx": export,
    "int8.onnx": quantise,
}


if __name__ == "__main__":
    prepared.artefact(ARTEFACTS[sys.argv[1]], sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
