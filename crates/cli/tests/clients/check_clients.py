#!/usr/bin/env python3
"""Asks running Centuple servers with the clients people use, and compares the answers with expected values.

    check_clients.py --embed-url U --classify-url V --rank-url W --tasks-url X --full-url Y --expected expected.json

expected.json:

    {"tolerance": 1e-4,
     "embeddings": [{"text": "...", "ids": [2, 7, 3], "embedding": [0.1, ...]}, ...],
     "classification": [{"text": "...", "scores": {"good": 0.9, "bad": 0.1}}, ...],
     "ranking": [{"query": "...", "text": "...", "score": 0.5}, ...],
     "same": {"text": "...", "model": "...", "bits": [1065353216, ...]},
     "asks": [{"model": "ner", "task": "token-classification", "body": {...}, "reply": [...]}, ...]}

At least two embeddings of non-empty texts and one of each other kind; `ids` are the text's tokens, special tokens included; `bits` are
the f32 numbers of one embedding of unit length. A `reply` of null is an error. Prints each check; the first wrong answer ends the
script with exit code 1.
"""

import argparse
import json
from pathlib import Path

import check_serving
import check_tasks
import cohere
import numpy
import openai
from comparison import Comparison
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embed-url", required=True, help="base URL of a server with an embedding model")
    parser.add_argument("--classify-url", required=True, help="base URL of a server with a text classifier")
    parser.add_argument("--rank-url", required=True, help="base URL of a server with a ranker")
    parser.add_argument("--tasks-url", required=True, help="base URL of a server with the models of `same` and `asks`")
    parser.add_argument("--full-url", required=True, help="base URL of a server of sentence-mean and one-label, full")
    parser.add_argument("--expected", required=True, type=Path, help="JSON file of expected values")
    arguments = parser.parse_args()
    expected = json.loads(arguments.expected.read_text(encoding="utf-8"))
    embed_url, classify_url = arguments.embed_url.rstrip("/"), arguments.classify_url.rstrip("/")
    rank_url, tasks_url, full_url = (
        url.rstrip("/") for url in (arguments.rank_url, arguments.tasks_url, arguments.full_url)
    )
    compare = Comparison(expected["tolerance"])

    check_openai(embed_url, expected["embeddings"], compare)
    check_embeddings(embed_url, expected["embeddings"], compare)
    check_classification(classify_url, expected["classification"], compare)
    check_cohere(rank_url, expected["ranking"], compare)
    check_triton(embed_url, expected["embeddings"], compare)
    check_triton_classes(classify_url, expected["classification"], compare)
    check_tasks.check(tasks_url, expected["asks"], compare)
    check_serving.check_embeddings(embed_url, expected["embeddings"], compare)
    check_serving.check_infinity(rank_url, classify_url, expected, compare)
    check_serving.check_kserve(embed_url, expected["embeddings"], compare)
    check_serving.check_same(tasks_url, expected["same"], compare)
    check_serving.check_full(full_url, compare)
    check_serving.check_metrics(embed_url, compare)
    print(f"{compare.checks} checks passed")


def check_openai(url: str, cases: list[dict], compare: Comparison) -> None:
    """The openai client: every form of input, both encodings, and its typed error."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    texts, ids = [case["text"] for case in cases], [case["ids"] for case in cases]
    embeddings = [case["embedding"] for case in cases]

    def ask(given, **parameters) -> list[list[float]]:
        reply = client.embeddings.create(model=model, input=given, **parameters)
        compare.that("openai: indices in order", [row.index for row in reply.data] == list(range(len(reply.data))))
        compare.that("openai: usage counts tokens", reply.usage.prompt_tokens > 0)
        return [row.embedding for row in reply.data]

    compare.numbers("openai: one text, base64", ask(texts[0]), embeddings[:1])
    compare.numbers("openai: one text, float", ask(texts[0], encoding_format="float"), embeddings[:1])
    compare.numbers("openai: batch of texts", ask(texts), embeddings)
    compare.numbers("openai: tokens of one text", ask(ids[0]), embeddings[:1])
    compare.numbers("openai: batch of tokens", ask(ids), embeddings)
    counted = client.embeddings.create(model=model, input=texts).usage.prompt_tokens
    compare.that(f"openai: {counted} tokens counted", counted == sum(map(len, ids)))
    try:
        ask("")
        compare.that("openai: the empty text is refused", False)
    except openai.BadRequestError as error:
        compare.that(f"openai: the empty text is refused: {error.message}", bool(error.message))


def check_embeddings(url: str, cases: list[dict], compare: Comparison) -> None:
    """huggingface_hub on the root and on the hub-style routes: feature extraction and sentence similarity."""
    texts, embeddings = [case["text"] for case in cases], numpy.array([case["embedding"] for case in cases])
    name = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id
    unit = embeddings / numpy.linalg.norm(embeddings, axis=1, keepdims=True)
    for route in (url, f"{url}/models/{name}", f"{url}/models/{name}/pipeline/feature-extraction"):
        client = InferenceClient(model=route)
        what = f"huggingface_hub: feature_extraction at {route.removeprefix(url) or '/'}"
        one = client.feature_extraction(texts[0])
        compare.numbers(what, one.reshape(-1), embeddings[0])
        compare.numbers(f"{what}, batch", client.feature_extraction(texts), embeddings)
        compare.numbers(f"{what}, normalised", client.feature_extraction(texts, normalize=True), unit)

    client = InferenceClient(model=f"{url}/models/{name}/pipeline/sentence-similarity")
    scores = client.sentence_similarity(texts[0], other_sentences=texts[1:])
    compare.numbers("huggingface_hub: sentence_similarity", scores, unit[1:] @ unit[0])


def check_classification(url: str, cases: list[dict], compare: Comparison) -> None:
    """huggingface_hub on a classifier: all labels, the best one, the raw logits' order, and an error."""
    client = InferenceClient(model=url)
    for case in cases:
        scores, what = case["scores"], f"huggingface_hub: text_classification {case['text'][:20]!r}"
        rows = client.text_classification(case["text"], top_k=len(scores))
        ranked = sorted(scores, key=scores.get, reverse=True)
        compare.that(f"{what}: labels from best to worst", [row.label for row in rows] == ranked)
        compare.numbers(what, [row.score for row in rows], [scores[label] for label in ranked])
        best = client.text_classification(case["text"], top_k=1)
        compare.that(f"{what}: top_k", [row.label for row in best] == ranked[:1])
        raw = client.text_classification(case["text"], top_k=len(scores), function_to_apply="none")
        compare.that(f"{what}: function_to_apply", [row.label for row in raw] == ranked)
    try:
        InferenceClient(model=f"{url}/models/no-such-model").text_classification("text")
        compare.that("huggingface_hub: an unknown model is an error", False)
    except HfHubHTTPError as error:
        compare.that(f"huggingface_hub: an unknown model is a {error.response.status_code}", True)


def check_cohere(url: str, cases: list[dict], compare: Comparison) -> None:
    """Both clients of cohere on a ranker: scores, order, and a typed error."""
    for version, client in (("v1", cohere.Client("none", base_url=url)), ("v2", cohere.ClientV2("none", base_url=url))):
        for case in cases:
            reply = client.rerank(model="rerank", query=case["query"], documents=[case["text"]])
            compare.that(f"cohere {version}: index", [result.index for result in reply.results] == [0])
            scores = [result.relevance_score for result in reply.results]
            compare.numbers(f"cohere {version}: {case['text'][:20]!r}", scores, [case["score"]])
        same = [case for case in cases if case["query"] == cases[0]["query"]]
        texts = [case["text"] for case in same]
        reply = client.rerank(model="rerank", query=same[0]["query"], documents=texts)
        ranked = sorted((case["score"] for case in same), reverse=True)
        compare.numbers(f"cohere {version}: best first", [result.relevance_score for result in reply.results], ranked)
        reply = client.rerank(model="rerank", query=same[0]["query"], documents=texts, top_n=1)
        compare.that(f"cohere {version}: top_n", len(reply.results) == 1)
        try:
            client.rerank(model="rerank", query="a", documents=[])
            compare.that(f"cohere {version}: no document is an error", False)
        except cohere.BadRequestError as error:
            compare.that(f"cohere {version}: no document is an error: {error.body}", "message" in error.body)


def check_triton(url: str, cases: list[dict], compare: Comparison) -> None:
    """tritonclient on an embedding model: what it tells, texts and tokens, as bytes and as JSON, compressed."""
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    name = client.get_model_repository_index()[0]["name"]
    ready = [client.is_server_live(), client.is_server_ready(), client.is_model_ready(name)]
    compare.that("tritonclient: live and ready", all(ready))
    compare.that("tritonclient: metadata", client.get_model_metadata(name)["inputs"][0]["name"] == "TEXT")
    compare.that("tritonclient: configuration", client.get_model_config(name)["max_batch_size"] > 0)
    texts, embeddings = [case["text"] for case in cases], [case["embedding"] for case in cases]

    for binary in (True, False):
        given = triton.InferInput("TEXT", [len(texts), 1], "BYTES")
        given.set_data_from_numpy(numpy.array([[text.encode()] for text in texts], object), binary_data=binary)
        wanted = triton.InferRequestedOutput("output", binary_data=binary)
        what = f"tritonclient: texts, {'bytes' if binary else 'JSON'}"
        for compression in (None, "gzip", "deflate"):
            reply = client.infer(name, [given], outputs=[wanted], request_compression_algorithm=compression)
            compare.numbers(f"{what}, compression {compression}", reply.as_numpy("output"), embeddings)
        compare.numbers(f"{what}, all outputs", client.infer(name, [given]).as_numpy("output"), embeddings)

        ids = [case["ids"] for case in cases]
        length = max(map(len, ids))
        padded = numpy.array([row + [0] * (length - len(row)) for row in ids], numpy.int64)
        mask = numpy.array([[1] * len(row) + [0] * (length - len(row)) for row in ids], numpy.int64)
        tensors = [triton.InferInput(tensor, padded.shape, "INT64") for tensor in ("input_ids", "attention_mask")]
        tensors[0].set_data_from_numpy(padded, binary_data=binary)
        tensors[1].set_data_from_numpy(mask, binary_data=binary)
        reply = client.infer(name, tensors)
        what = f"tritonclient: tokens, {'bytes' if binary else 'JSON'}"
        compare.numbers(what, reply.as_numpy("sentence_embedding"), embeddings)

    counted = client.get_inference_statistics(name)["model_stats"][0]
    compare.that("tritonclient: statistics", counted["inference_stats"]["success"]["count"] >= 10)
    try:
        client.infer("nothing", [given])
        compare.that("tritonclient: an unknown model is an error", False)
    except InferenceServerException as error:
        compare.that(f"tritonclient: an unknown model is an error: {error.message()}", "nothing" in error.message())


def check_triton_classes(url: str, cases: list[dict], compare: Comparison) -> None:
    """tritonclient on a classifier: the best classes by name."""
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    name = client.get_model_repository_index()[0]["name"]
    given = triton.InferInput("TEXT", [len(cases)], "BYTES")
    given.set_data_from_numpy(numpy.array([case["text"].encode() for case in cases], object))
    wanted = triton.InferRequestedOutput("output", class_count=2)
    classes = client.infer(name, [given], outputs=[wanted]).as_numpy("output")
    for case, row in zip(cases, classes, strict=True):
        ranked = sorted(case["scores"], key=case["scores"].get, reverse=True)[:2]
        compare.that("tritonclient: classes", [one.decode().split(":", 2)[2] for one in row] == ranked)


if __name__ == "__main__":
    main()
