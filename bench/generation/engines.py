"""The peers by name. A new peer is one class here and one line in `PEERS`.

An engine is made by `Engine(model, artefact, threads)`: the checkpoint's folder, and what `prepare.py` made of it for
this engine (None where the peer needs nothing). It answers `run(prompt, new)`: a list of token ids and how many are to
follow, the likeliest each time and no end, to the seconds that the prompt took up to its first new token, and those of
the tokens after it. Its `note` says in a few words which setting it runs.
"""

import time
from dataclasses import dataclass
from pathlib import Path


class LlamaCpp:
    """llama.cpp by its own library, one token at a time, all tokens of the prompt together."""

    def __init__(self, model: Path, artefact: Path, threads: int):
        import llama_cpp

        self._llama = llama_cpp.Llama(
            str(artefact), n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self._library = llama_cpp
        self.note = f"llama-cpp-python {llama_cpp.__version__}, {artefact.stem}, built for this CPU"

    def run(self, prompt: list[int], new: int) -> tuple[float, float]:
        self._llama.reset()
        start = time.perf_counter()
        token = self._next(prompt)
        middle = time.perf_counter()
        for _ in range(new):
            token = self._next([token])
        return middle - start, time.perf_counter() - middle

    def _next(self, tokens: list[int]) -> int:
        import numpy

        self._llama.eval(tokens)
        logits = self._library.llama_get_logits_ith(self._llama.ctx, -1)
        return int(numpy.ctypeslib.as_array(logits, (self._llama.n_vocab(),)).argmax())


class Transformers:
    """`generate` of transformers, f32, with its cache."""

    cached = True

    def __init__(self, model: Path, artefact: Path | None, threads: int):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        without = "" if self.cached else "out"
        self.note = f"transformers {transformers.__version__}, torch {torch.__version__}, f32, with{without} cache"

    def run(self, prompt: list[int], new: int) -> tuple[float, float]:
        first = self._generate(prompt, 1)
        return first, self._generate(prompt, new + 1) - first

    def _generate(self, prompt: list[int], new: int) -> float:
        import torch

        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "use_cache": self.cached, "pad_token_id": 0}
        start = time.perf_counter()
        with torch.inference_mode():
            answer = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, **settings
            )
        seconds = time.perf_counter() - start
        assert answer.shape[1] == len(prompt) + new
        return seconds


class TransformersUncached(Transformers):
    """The same, computing all tokens again for each new one."""

    cached = False


class CTranslate2:
    """CTranslate2's generator, int8 weights."""

    def __init__(self, model: Path, artefact: Path, threads: int):
        import ctranslate2
        import tokenizers

        options = {"compute_type": "int8_float32", "intra_threads": threads, "inter_threads": 1}
        self._generator = ctranslate2.Generator(str(artefact), device="cpu", **options)
        self._tokens = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
        self.note = f"ctranslate2 {ctranslate2.__version__}, {self._generator.compute_type}"

    def run(self, prompt: list[int], new: int) -> tuple[float, float]:
        first = self._generate(prompt, 1)
        return first, self._generate(prompt, new + 1) - first

    def _generate(self, prompt: list[int], new: int) -> float:
        tokens = [self._tokens.id_to_token(index) for index in prompt]
        start = time.perf_counter()
        [answer] = self._generator.generate_batch(
            [tokens], max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False, end_token=[]
        )
        seconds = time.perf_counter() - start
        assert len(answer.sequences_ids[0]) == new
        return seconds


class OnnxRuntime:
    """ONNX Runtime on an export with keys and values, which stay where the session has put them."""

    def __init__(self, model: Path, artefact: Path, threads: int):
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(artefact), settings, providers=["CPUExecutionProvider"])
        self._past = [one for one in self._session.get_inputs() if one.name != "input_ids"]
        self._library = onnxruntime
        self.note = f"onnxruntime {onnxruntime.__version__}, {artefact.stem}, all rewrites of the session"

    def run(self, prompt: list[int], new: int) -> tuple[float, float]:
        import numpy

        def empty(one):
            heads, head_dim = one.shape[1], one.shape[3]
            return self._library.OrtValue.ortvalue_from_numpy(numpy.zeros((1, heads, 0, head_dim), numpy.float32))

        start = time.perf_counter()
        token, kept = self._next(prompt, [empty(one) for one in self._past])
        middle = time.perf_counter()
        for _ in range(new):
            token, kept = self._next([token], kept)
        return middle - start, time.perf_counter() - middle

    def _next(self, tokens: list[int], kept: list) -> tuple[int, list]:
        import numpy

        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", numpy.array([tokens], numpy.int64))
        for one, value in zip(self._past, kept, strict=True):
            binding.bind_ortvalue_input(one.name, value)
        for one in self._session.get_outputs():
            binding.bind_output(one.name)
        self._session.run_with_iobinding(binding)
        logits, *kept = binding.get_outputs()
        return int(logits.numpy()[0, -1].argmax()), kept


@dataclass(frozen=True)
class Kind:
    """A peer's class, the name of the artefact that `prepare.py` makes for it, and the tables that it stands in."""

    engine: type
    artefact: str | None
    beside: tuple[str, ...]


PEERS = {
    "llama.cpp-q4_1": Kind(LlamaCpp, "q4_1.gguf", ("llama",)),
    "llama.cpp-q4_0": Kind(LlamaCpp, "q4_0.gguf", ("llama",)),
    "llama.cpp-q8_0": Kind(LlamaCpp, "q8_0.gguf", ("llama",)),
    "transformers": Kind(Transformers, None, ("llama", "gpt2", "uncached")),
    "transformers-uncached": Kind(TransformersUncached, None, ("uncached",)),
    "ctranslate2-int8": Kind(CTranslate2, "ctranslate2", ("gpt2",)),
    "onnxruntime-int8": Kind(OnnxRuntime, "int8.onnx", ("gpt2",)),
}
