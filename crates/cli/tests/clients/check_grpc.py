#!/usr/bin/env python3
"""Asks running Centuple servers over gRPC, and compares the answers with expected values.

    check_grpc.py triton|kserve|reflection --embed-url U --classify-url V --rank-url W --tasks-url X --expected expected.json

The clients have messages of the same names, so each needs a process of its own. `triton`: tritonclient, and the standard health
client. `kserve`: KServe's client. `reflection`: no client but what the server tells of itself, for the services of
text-embeddings-inference. expected.json is that of check_clients.py.
"""

import argparse
import asyncio
import json
import queue
from pathlib import Path

import numpy
from comparison import Comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", choices=["triton", "kserve", "reflection"])
    parser.add_argument("--embed-url", required=True, help="base URL of a server with an embedding model")
    parser.add_argument("--classify-url", required=True, help="base URL of a server with a text classifier")
    parser.add_argument("--rank-url", required=True, help="base URL of a server with a ranker")
    parser.add_argument("--tasks-url", required=True, help="base URL of a server with the model of `same`")
    parser.add_argument("--expected", required=True, type=Path, help="JSON file of expected values")
    arguments = parser.parse_args()
    expected = json.loads(arguments.expected.read_text(encoding="utf-8"))
    embed, classify, rank, tasks = (
        url.removeprefix("http://").rstrip("/")
        for url in (arguments.embed_url, arguments.classify_url, arguments.rank_url, arguments.tasks_url)
    )
    compare = Comparison(expected["tolerance"])
    match arguments.client:
        case "triton":
            check_triton(embed, expected["embeddings"], compare)
            check_triton_classes(classify, expected["classification"], compare)
            for server, repository in ((embed, "embed"), (classify, "classify")):
                check_repository(server, Path(expected["repositories"][repository]), compare)
            check_health(embed, compare)
            check_triton_same(tasks, expected["same"], compare)
        case "kserve":
            asyncio.run(check_kserve(embed, expected["embeddings"], compare))
            asyncio.run(check_kserve_same(tasks, expected["same"], compare))
        case "reflection":
            check_reflection(embed, classify, rank, expected, compare)
            check_tei_same(tasks, expected["same"], compare)
    print(f"{compare.checks} checks of {arguments.client} over gRPC passed")


def check_triton(address: str, cases: list[dict], compare: Comparison) -> None:
    """tritonclient on an embedding model: what it is told, texts and tokens, compressed, streamed, and its errors."""
    from tritonclient import grpc as triton
    from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(address)
    compare.that("triton grpc: live and ready", client.is_server_live() and client.is_server_ready())
    name = client.get_model_repository_index().models[0].name
    compare.that("triton grpc: the model is ready", client.is_model_ready(name) and not client.is_model_ready("nothing"))
    metadata, config = client.get_model_metadata(name), client.get_model_config(name).config
    told = [tensor.name for tensor in (*metadata.inputs, *metadata.outputs)]
    compare.that(f"triton grpc: tensors {told}", told == [tensor.name for tensor in (*config.input, *config.output)])
    texts, expected = [case["text"] for case in cases], [case["embedding"] for case in cases]

    def given(texts: list[str]) -> list:
        text = triton.InferInput("TEXT", [len(texts)], "BYTES")
        text.set_data_from_numpy(numpy.array([text.encode() for text in texts], dtype=numpy.object_))
        return [text]

    for compression in (None, "gzip", "deflate"):
        reply = client.infer(name, given(texts), request_id="7", compression_algorithm=compression)
        compare.numbers(f"triton grpc: texts, {compression or 'plain'}", reply.as_numpy("output"), expected)
        compare.that("triton grpc: the id comes back", reply.get_response().id == "7")
    for case in cases:
        for kind in (numpy.int64, numpy.int32):
            ids = numpy.array([case["ids"]], dtype=kind)
            tensors = []
            for tensor, values in (("input_ids", ids), ("attention_mask", numpy.ones_like(ids))):
                tensors.append(triton.InferInput(tensor, values.shape, "INT64" if kind is numpy.int64 else "INT32"))
                tensors[-1].set_data_from_numpy(values)
            found = client.infer(name, tensors).as_numpy("sentence_embedding")
            compare.numbers(f"triton grpc: {kind.__name__} tokens", found, [case["embedding"]])

    replies = queue.Queue()
    client.start_stream(lambda result, error: replies.put((result, error)))
    for text in (*texts, ""):
        client.async_stream_infer(name if text else "nothing", given([text]))
    client.async_stream_infer(name, given(texts[:1]))
    client.stop_stream()
    streamed = [replies.get(timeout=60) for _ in range(len(texts) + 2)]
    for (result, error), row in zip(streamed, expected, strict=False):
        compare.that("triton grpc: no error in the stream", error is None)
        compare.numbers("triton grpc: streamed", result.as_numpy("output"), [row])
    compare.that(f"triton grpc: one message fails alone: {streamed[-2][1]}", streamed[-2][1] is not None)
    compare.numbers("triton grpc: the next one does not", streamed[-1][0].as_numpy("output"), expected[:1])

    statistics = client.get_inference_statistics(name).model_stats[0]
    compare.that("triton grpc: statistics count", statistics.inference_count >= len(texts) * 3 + 2 * len(cases))
    for what, ask, status in (
        ("an unknown model", lambda: client.infer("nothing", given(texts)), "StatusCode.NOT_FOUND"),
        ("no text", lambda: client.infer(name, []), "StatusCode.INVALID_ARGUMENT"),
    ):
        try:
            ask()
            compare.that(f"triton grpc: {what} is an error", False)
        except InferenceServerException as error:
            compare.that(f"triton grpc: {what} is {error.status()}: {error.message()}", error.status() == status)
    client.close()


def check_triton_classes(address: str, cases: list[dict], compare: Comparison) -> None:
    """tritonclient on a classifier: the best classes as texts."""
    from tritonclient import grpc as triton

    client = triton.InferenceServerClient(address)
    name = client.get_model_repository_index().models[0].name
    for case in cases:
        text = triton.InferInput("TEXT", [1], "BYTES")
        text.set_data_from_numpy(numpy.array([case["text"].encode()], dtype=numpy.object_))
        wanted = triton.InferRequestedOutput("logits", class_count=len(case["scores"]))
        rows = client.infer(name, [text], outputs=[wanted]).as_numpy("logits").reshape(-1)
        labels = [row.decode().split(":")[2] for row in rows]
        ranked = sorted(case["scores"], key=case["scores"].get, reverse=True)
        compare.that(f"triton grpc: classes {labels}", labels == ranked)
    client.close()


def check_repository(address: str, repository: Path, compare: Comparison) -> None:
    """Exported configurations by Triton's own definition: the model's tensors are those that the server tells."""
    from google.protobuf import text_format
    from tritonclient import grpc as triton
    from tritonclient.grpc import model_config_pb2

    paths = sorted(repository.glob("*/config.pbtxt"))
    model, ensemble = (
        text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig()) for path in paths
    )
    for path, config in zip(paths, (model, ensemble), strict=True):
        folder = path.parent
        compare.that(f"repository: {config.name} is in {folder.name}", config.name == folder.name)
        compare.that("repository: it has a version", (folder / "1").is_dir())

    def tensors(listed) -> list[tuple]:
        return [(one.name, model_config_pb2.DataType.Name(one.data_type), list(one.dims)) for one in listed]

    with triton.InferenceServerClient(address) as client:
        tokens, texts = (client.get_model_metadata(f"transformer_onnx_{kind}") for kind in ("model", "inference"))
        told = [(one.name, f"TYPE_{one.datatype}", list(one.shape)[1:]) for one in (*tokens.inputs, *tokens.outputs)]
        found = [*tensors(model.input), *tensors(model.output)]
        compare.that(f"repository: tensors {found}", all(tensor in found for tensor in told))
        outputs = [one.name for one in ensemble.output]
        compare.that(f"repository: the ensemble gives {outputs}", outputs == [one.name for one in texts.outputs])
    step = ensemble.ensemble_scheduling.step[0]
    compare.that("repository: the ensemble has the model", step.model_name == model.name)
    compare.that("repository: and hands it all", set(step.input_map) == {one.name for one in model.input})
    compare.that("repository: batches are dynamic", model.dynamic_batching.max_queue_delay_microseconds > 0)
    compare.that("repository: sizes fit", max(model.dynamic_batching.preferred_batch_size) <= model.max_batch_size)
    compare.that("repository: versions", model.version_policy.WhichOneof("policy_choice") == "latest")
    warm = [set(sample.inputs) for sample in model.model_warmup]
    compare.that("repository: warm-up", warm and all(names == set(step.input_map) for names in warm))


def check_triton_same(address: str, same: dict, compare: Comparison) -> None:
    """The vector that every client gets, to the last bit."""
    from tritonclient import grpc as triton

    with triton.InferenceServerClient(address) as client:
        text = triton.InferInput("TEXT", [1], "BYTES")
        text.set_data_from_numpy(numpy.array([same["text"].encode()], dtype=numpy.object_))
        compare.bits("same: triton grpc", client.infer(same["model"], [text]).as_numpy("output"), same["bits"])


def check_health(address: str, compare: Comparison) -> None:
    """The standard health service."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "inference.GRPCInferenceService"):
            status = stub.Check(health_pb2.HealthCheckRequest(service=service)).status
            compare.that(f"grpc health: {service or 'the server'}", status == health_pb2.HealthCheckResponse.SERVING)
        watched = stub.Watch(health_pb2.HealthCheckRequest())
        compare.that("grpc health: watched", next(watched).status == health_pb2.HealthCheckResponse.SERVING)
        watched.cancel()


async def check_kserve(address: str, cases: list[dict], compare: Comparison) -> None:
    """KServe's client: texts, tokens, and its error."""
    import grpc
    from kserve import InferenceGRPCClient, InferInput, InferRequest
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    # Its client does not tell which models there are.
    async with grpc.aio.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        server = await stub.ServerMetadata(messages.ServerMetadataRequest())
        compare.that(f"kserve grpc: {server.name} {server.version}", server.name == "centuple")
        name = "transformer_onnx_inference"
        metadata = await stub.ModelMetadata(messages.ModelMetadataRequest(name=name))
        compare.that("kserve grpc: metadata", [tensor.name for tensor in metadata.inputs] == ["TEXT"])
    texts, expected = [case["text"] for case in cases], [case["embedding"] for case in cases]
    async with InferenceGRPCClient(address) as client:
        ready = await client.is_server_ready(), await client.is_server_live(), await client.is_model_ready(name)
        compare.that("kserve grpc: live and ready", all(ready))
        plain = InferInput("TEXT", [len(texts)], "BYTES", data=[text.encode() for text in texts])
        raw = InferInput("TEXT", [len(texts)], "BYTES")
        raw.set_data_from_numpy(numpy.array([text.encode() for text in texts], dtype=numpy.object_), binary_data=True)
        ids = cases[0]["ids"]
        tokens = InferInput("input_ids", [1, len(ids)], "INT64", data=ids)
        for what, given, rows in (
            ("texts", plain, expected),
            ("texts as bytes", raw, expected),
            ("tokens", tokens, expected[:1]),
        ):
            reply = await client.infer(InferRequest(name, [given]))
            compare.numbers(f"kserve grpc: {what}", reply.outputs[0].as_numpy(), rows)
        try:
            await client.infer(InferRequest("nothing", [plain]))
            compare.that("kserve grpc: an unknown model is an error", False)
        except grpc.RpcError as error:
            compare.that("kserve grpc: an unknown model is an error", error.code() == grpc.StatusCode.NOT_FOUND)


async def check_kserve_same(address: str, same: dict, compare: Comparison) -> None:
    """The vector that every client gets, to the last bit."""
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    async with InferenceGRPCClient(address) as client:
        text = InferInput("TEXT", [1], "BYTES", data=[same["text"].encode()])
        reply = await client.infer(InferRequest(same["model"], [text]))
        compare.bits("same: kserve grpc", reply.outputs[0].as_numpy(), same["bits"])


def check_tei_same(address: str, same: dict, compare: Comparison) -> None:
    """The vector that every client gets, to the last bit."""
    with Reflected(address) as server:
        reply = server.call("tei.v1.Embed", "Embed", {"inputs": same["text"]})
        compare.bits("same: tei grpc", reply.embeddings, same["bits"])


def check_reflection(embed: str, classify: str, rank: str, expected: dict, compare: Comparison) -> None:
    """text-embeddings-inference by what the servers tell of their messages."""
    cases = expected["embeddings"]
    with Reflected(embed) as server:
        reply = server.call("tei.v1.Info", "Info", {})
        compare.that(f"tei grpc: {reply.model_id}", reply.version != "" and reply.model_type == 0)
        for case in cases:
            asked = {"inputs": case["text"], "normalize": False, "truncate": True}
            reply = server.call("tei.v1.Embed", "Embed", asked)
            compare.numbers("tei grpc: embed", reply.embeddings, case["embedding"])
            compare.that("tei grpc: tokens counted", reply.metadata.compute_tokens == len(case["ids"]))
            tokens = {"inputs": case["text"], "add_special_tokens": True}
            reply = server.call("tei.v1.Tokenize", "Tokenize", tokens)
            # These are of the whole text, those of the case end where the model's maximum cuts it.
            begin = case["ids"][:-1]
            compare.that("tei grpc: tokens", [token.id for token in reply.tokens][: len(begin)] == begin)
    with Reflected(classify) as server:
        # This service refuses the empty text.
        for case in filter(lambda case: case["text"], expected["classification"]):
            reply = server.call("tei.v1.Predict", "Predict", {"inputs": case["text"], "truncate": True})
            found = {prediction.label: prediction.score for prediction in reply.predictions}
            labels = sorted(case["scores"])
            compare.that("tei grpc: labels", sorted(found) == labels)
            scores = [case["scores"][label] for label in labels]
            compare.numbers("tei grpc: predict", [found[label] for label in labels], scores)
    with Reflected(rank) as server:
        for case in expected["ranking"]:
            asked = {"query": case["query"], "texts": [case["text"]], "return_text": True, "truncate": True}
            reply = server.call("tei.v1.Rerank", "Rerank", asked)
            compare.numbers("tei grpc: rerank", [found.score for found in reply.ranks], [case["score"]])
            compare.that("tei grpc: text", reply.ranks[0].text == case["text"])


class Reflected:
    """A server whose messages are known from itself alone."""

    def __init__(self, address: str):
        import grpc
        from google.protobuf.descriptor_pool import DescriptorPool
        from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

        self._channel = grpc.insecure_channel(address)
        self._pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self._channel))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()

    def call(self, service: str, method: str, fields: dict):
        """The reply to a message with these fields."""
        from google.protobuf.message_factory import GetMessageClass

        found = self._pool.FindServiceByName(service).FindMethodByName(method)
        asks, answers = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
        call = self._channel.unary_unary(
            f"/{service}/{method}", request_serializer=asks.SerializeToString, response_deserializer=answers.FromString
        )
        return call(asks(**fields), timeout=60)


if __name__ == "__main__":
    main()
