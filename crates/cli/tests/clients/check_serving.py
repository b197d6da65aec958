"""The clients of other servers: text-embeddings-inference, Infinity, KServe; what Prometheus reads; one vector through all of them."""

import asyncio
import base64
import json
import urllib.request

import numpy
import openai
from cohere import ClientV2
from cohere.errors import TooManyRequestsError
from comparison import Comparison
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from infinity_client import Client as InfinityClient
from infinity_client.api.default import classify, embeddings, models, rerank
from infinity_client.models import ClassifyInput, OpenAIEmbeddingInputText, RerankInput
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
from prometheus_client.parser import text_string_to_metric_families
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException


def unit(rows) -> numpy.ndarray:
    """Each row of length 1, which is the default of text-embeddings-inference."""
    rows = numpy.asarray(rows, numpy.float32)
    return rows / numpy.linalg.norm(rows, axis=-1, keepdims=True)


def check_embeddings(url: str, cases: list[dict], compare: Comparison) -> None:
    """LlamaIndex' client of text-embeddings-inference, alone, in batches, and asynchronous."""
    client = TextEmbeddingsInference(model_name="any", base_url=url, embed_batch_size=2)
    texts, expected = [case["text"] for case in cases], unit([case["embedding"] for case in cases])
    compare.numbers("llama-index: one text", client.get_text_embedding(texts[0]), expected[0])
    compare.numbers("llama-index: batches of two", client.get_text_embedding_batch(texts), expected)
    compare.numbers("llama-index: a query", client.get_query_embedding(texts[1]), expected[1])
    compare.numbers("llama-index: asynchronous", asyncio.run(client.aget_text_embedding(texts[0])), expected[0])


def check_infinity(rank_url: str, classify_url: str, expected: dict, compare: Comparison) -> None:
    """Infinity's client: ranking, classes, models."""
    client = InfinityClient(base_url=rank_url, raise_on_unexpected_status=True)
    cases = [case for case in expected["ranking"] if case["query"] == expected["ranking"][0]["query"]]
    texts = [case["text"] for case in cases]
    reply = rerank.sync(client=client, body=RerankInput(query=cases[0]["query"], documents=texts))
    scores = {result.index: result.relevance_score for result in reply.results}
    compare.numbers("infinity: rerank", [scores[i] for i in range(len(texts))], [case["score"] for case in cases])
    compare.that("infinity: one model", len(models.sync(client=client).data) == 1)

    client = InfinityClient(base_url=classify_url, raise_on_unexpected_status=True)
    for case in expected["classification"]:
        reply = classify.sync(client=client, body=ClassifyInput(input_=[case["text"]], model="any"))
        found = {row["label"]: row["score"] for row in (one.to_dict() for one in reply.data[0])}
        labels = sorted(case["scores"])
        compare.that("infinity: labels", sorted(found) == labels)
        compare.numbers("infinity: classify", [found[one] for one in labels], [case["scores"][one] for one in labels])


def check_kserve(url: str, cases: list[dict], compare: Comparison) -> None:
    """KServe's client of the Open Inference Protocol over HTTP."""
    asyncio.run(_check_kserve(url, cases, compare))


async def _check_kserve(url: str, cases: list[dict], compare: Comparison) -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        name = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id
        ready = await client.is_server_ready(url), await client.is_server_live(url), await client.is_model_ready(url, name)
        compare.that("kserve: live and ready", all(ready))
        texts, expected = [case["text"] for case in cases], [case["embedding"] for case in cases]
        for kind, given in (("JSON", _texts(texts)), ("bytes", _texts(texts, binary=True))):
            reply = await client.infer(url, InferRequest(name, [given]), model_name=name)
            compare.numbers(f"kserve: texts as {kind}", reply.outputs[0].as_numpy(), expected)
        ids = cases[0]["ids"]
        tokens = InferInput("input_ids", [1, len(ids)], "INT64", data=ids)
        reply = await client.infer(url, InferRequest(name, [tokens]), model_name=name)
        compare.numbers("kserve: tokens", reply.outputs[0].as_numpy(), expected[:1])
        try:
            await client.infer(url, InferRequest("nothing", [tokens]), model_name="nothing")
            compare.that("kserve: an unknown model is an error", False)
        except Exception as error:  # noqa: BLE001 (its type is that of another library's HTTP)
            compare.that(f"kserve: an unknown model is an error: {error}", "404" in str(error))


def _texts(texts: list[str], binary: bool = False) -> InferInput:
    if not binary:
        return InferInput("TEXT", [len(texts)], "BYTES", data=texts)
    given = InferInput("TEXT", [len(texts)], "BYTES")
    given.set_data_from_numpy(numpy.array([text.encode() for text in texts], object), binary_data=True)
    return given


def check_same(url: str, same: dict, compare: Comparison) -> None:
    """One text has the same bits through every protocol and client."""
    text, model, bits = same["text"], same["model"], same["bits"]
    for encoding in ("base64", "float"):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        row = client.embeddings.create(model=model, input=text, encoding_format=encoding).data[0].embedding
        compare.bits(f"same: openai {encoding}", _floats(row), bits)
    for route in (f"/models/{model}", f"/models/{model}/pipeline/feature-extraction"):
        row = InferenceClient(model=f"{url}{route}").feature_extraction(text)
        compare.bits(f"same: huggingface_hub {route}", row, bits)
    client = TextEmbeddingsInference(model_name=model, base_url=url)
    compare.bits("same: llama-index", client.get_text_embedding(text), bits)
    client = InfinityClient(base_url=url, raise_on_unexpected_status=True)
    reply = embeddings.sync(client=client, body=OpenAIEmbeddingInputText(input_=text, model=model))
    compare.bits("same: infinity", _floats(reply.data[0].embedding), bits)
    for binary in (True, False):
        given = triton.InferInput("TEXT", [1, 1], "BYTES")
        given.set_data_from_numpy(numpy.array([[text.encode()]], object), binary_data=binary)
        wanted = triton.InferRequestedOutput("output", binary_data=binary)
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            row = client.infer(model, [given], outputs=[wanted]).as_numpy("output")
        compare.bits(f"same: tritonclient {'bytes' if binary else 'JSON'}", row, bits)
    compare.bits("same: kserve", asyncio.run(_kserve_vector(url, model, text)), bits)


async def _kserve_vector(url: str, model: str, text: str) -> numpy.ndarray:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        reply = await client.infer(url, InferRequest(model, [_texts([text])]), model_name=model)
        return reply.outputs[0].as_numpy()


def _floats(row) -> numpy.ndarray:
    """A vector as the client hands it on: numbers, or base64 where its user has asked for that by name."""
    return numpy.frombuffer(base64.b64decode(row), "<f4") if isinstance(row, str) else numpy.asarray(row, numpy.float32)


def check_full(url: str, compare: Comparison) -> None:
    """A full queue in the words of every client: 429, and when to come back."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    ask = lambda: client.embeddings.create(model="sentence-mean", input="text")  # noqa: E731
    error = compare.refused("openai: a full queue", ask, openai.RateLimitError, 429)
    compare.that("openai: when to come back", int(error.response.headers["retry-after"]) >= 1)
    ask = lambda: InferenceClient(model=f"{url}/models/sentence-mean").feature_extraction("text")  # noqa: E731
    error = compare.refused("huggingface_hub: a full queue", ask, HfHubHTTPError, 429)
    compare.that("huggingface_hub: when to come back", int(error.response.headers["retry-after"]) >= 1)
    given = triton.InferInput("TEXT", [1], "BYTES")
    given.set_data_from_numpy(numpy.array([b"text"], object))
    try:
        triton.InferenceServerClient(url.removeprefix("http://")).infer("sentence-mean", [given])
        compare.that("tritonclient: a full queue", False)
    except InferenceServerException as error:
        compare.that(f"tritonclient: a full queue: {error}", error.status() == "429")
    ask = lambda: ClientV2("none", base_url=url).rerank(model="one-label", query="a", documents=["b"])  # noqa: E731
    error = compare.refused("cohere: a full queue", ask, TooManyRequestsError, 429)
    compare.that(f"cohere: when to come back: {error.body}", "try again" in error.body["message"])


def check_metrics(url: str, compare: Comparison) -> None:
    """What Prometheus' own parser makes of the metrics."""
    with urllib.request.urlopen(f"{url}/metrics") as reply:
        text = reply.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    compare.that(f"prometheus: {len(families)} metrics", len(families) >= 10)
    for name, kind in (
        ("te_request_count", "counter"),
        ("te_request_success", "counter"),
        ("te_request_duration", "histogram"),
        ("te_request_queue_duration", "histogram"),
        ("te_batch_next_size", "histogram"),
        ("te_queue_size", "gauge"),
    ):
        family = families.get(name)
        compare.that(f"prometheus: {name} is a {kind}", family is not None and family.type == kind)
    success = sum(sample.value for sample in families["te_request_success"].samples)
    compare.that(f"prometheus: {success} requests were answered", success >= 20)
    with urllib.request.urlopen(f"{url}/info") as reply:
        compare.that("info: a model", bool(json.load(reply)["model_id"]))
