#!/usr/bin/env python3
"""Has a running Centuple server generate texts through the clients people use, whole and in parts.

    check_generation.py --url U --expected expected.json

expected.json:

    {"model": "...", "prompt": "...", "messages": [{"role": "user", "content": "..."}], "tokens": 12,
     "completion": "...", "chat": "...", "chat_prompt_tokens": 7}

`completion` is how the likeliest `tokens` tokens go on with the prompt, `chat` how they answer the messages. Prints each check; the
first wrong answer ends the script with exit code 1.
"""

import argparse
import json
import queue
import urllib.request
from pathlib import Path

import numpy
import openai
from comparison import Comparison
from huggingface_hub import InferenceClient
from huggingface_hub.errors import TextGenerationError
from tritonclient import grpc as triton


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="base URL of a server with one model that generates")
    parser.add_argument("--expected", required=True, type=Path, help="JSON file of expected values")
    arguments = parser.parse_args()
    expected = json.loads(arguments.expected.read_text(encoding="utf-8"))
    url = arguments.url.rstrip("/")
    compare = Comparison(0.0)
    check_openai_chat(url, expected, compare)
    check_openai_completions(url, expected, compare)
    check_openai_errors(url, expected, compare)
    check_huggingface(url, expected, compare)
    check_triton_http(url, expected, compare)
    check_triton_grpc(url, expected, compare)
    print(f"{compare.checks} checks passed")


def check_openai_chat(url: str, expected: dict, compare: Comparison) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    compare.that("openai: the model is listed", [model.id for model in client.models.list()] == [expected["model"]])
    asked = {"model": expected["model"], "messages": expected["messages"], "temperature": 0}
    usage = (expected["chat_prompt_tokens"], expected["tokens"])
    for limit in ("max_tokens", "max_completion_tokens"):
        reply = client.chat.completions.create(**asked, **{limit: expected["tokens"]})
        choice = reply.choices[0]
        compare.that(f"openai: chat, {limit}", choice.message.content == expected["chat"])
        compare.that("openai: chat, why it ended", (choice.message.role, choice.finish_reason) == ("assistant", "length"))
        compare.that("openai: chat, tokens", (reply.usage.prompt_tokens, reply.usage.completion_tokens) == usage)

    asked["max_tokens"] = expected["tokens"]
    parts = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *parts, last = parts
    compare.that("openai: chat in parts, first the role", parts[0].choices[0].delta.role == "assistant")
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    compare.that(f"openai: chat in {len(parts)} parts", text == expected["chat"] and len(parts) > 3)
    compare.that("openai: chat in parts, why it ended", parts[-1].choices[0].finish_reason == "length")
    compare.that("openai: chat in parts, tokens", (last.usage.prompt_tokens, last.usage.completion_tokens) == usage)
    with client.chat.completions.stream(**asked) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
    compare.that("openai: chat, the helper for streams", text == expected["chat"])

    reply = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    tokens = reply.choices[0].logprobs.content
    compare.that("openai: log-probabilities tell the text", "".join(token.token for token in tokens) == expected["chat"])
    best = all(abs(token.logprob - token.top_logprobs[0].logprob) < 1e-6 for token in tokens)
    compare.that("openai: log-probabilities, the likeliest is chosen", best)
    drawn = [
        client.chat.completions.create(**{**asked, "temperature": 1.5}, n=2, seed=7).choices for _ in range(2)
    ]
    drawn = [[choice.message.content for choice in choices] for choices in drawn]
    compare.that("openai: the same seed, the same texts", drawn[0] == drawn[1] and len(set(drawn[0])) == 2)


def check_openai_completions(url: str, expected: dict, compare: Comparison) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    asked = {"model": "any", "prompt": expected["prompt"], "temperature": 0, "max_tokens": expected["tokens"]}
    whole = client.completions.create(**asked).choices[0]
    compare.that("openai: completion", (whole.text, whole.finish_reason) == (expected["completion"], "length"))
    parts = [part.choices[0].text for part in client.completions.create(**asked, stream=True)]
    compare.that(f"openai: completion in {len(parts)} parts", "".join(parts) == expected["completion"] and len(parts) > 3)


def check_openai_errors(url: str, expected: dict, compare: Comparison) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    image = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]
    for param, more in (
        ("tools", {"tools": [tool]}),
        ("messages", {"messages": [{"role": "user", "content": image}]}),
    ):
        try:
            client.chat.completions.create(**{"model": "any", "messages": expected["messages"], **more})
            compare.that(f"openai: {param} are an error", False)
        except openai.BadRequestError as error:
            compare.that(f"openai: {error.message}", error.param == param)


def check_huggingface(url: str, expected: dict, compare: Comparison) -> None:
    client = InferenceClient(model=url)
    prompt, tokens = expected["prompt"], expected["tokens"]
    asked = {"max_new_tokens": tokens, "return_full_text": False}
    compare.that("huggingface: text", client.text_generation(prompt, **asked) == expected["completion"])
    parts = list(client.text_generation(prompt, stream=True, **asked))
    compare.that(f"huggingface: text in {len(parts)} parts", "".join(parts) == expected["completion"])
    reply = client.text_generation(prompt, details=True, **asked)
    details = reply.details
    compare.that("huggingface: details", (details.generated_tokens, details.finish_reason) == (tokens, "length"))
    compare.that("huggingface: tokens", "".join(token.text for token in details.tokens) == reply.generated_text)
    *_, last = client.text_generation(prompt, stream=True, details=True, **asked)
    told = (last.generated_text, last.details.generated_tokens, last.details.finish_reason)
    compare.that("huggingface: details in parts", told == (expected["completion"], tokens, "length"))

    reply = client.chat_completion(expected["messages"], max_tokens=tokens, temperature=0)
    compare.that("huggingface: chat", reply.choices[0].message.content == expected["chat"])
    parts = client.chat_completion(expected["messages"], max_tokens=tokens, temperature=0, stream=True)
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    compare.that("huggingface: chat in parts", text == expected["chat"])
    try:
        client.text_generation(prompt, max_new_tokens=100_000)
        compare.that("huggingface: more tokens than there is room for are an error", False)
    except TextGenerationError as error:
        compare.that("huggingface: more tokens than there is room for are an error", "100000" in str(error))


def check_triton_http(url: str, expected: dict, compare: Comparison) -> None:
    """tritonclient has no function for these routes; Triton's own examples ask them as plainly."""
    body = {"text_input": expected["prompt"], "parameters": {"max_tokens": expected["tokens"], "stream": False}}
    reply = json.loads(post(f"{url}/v2/models/{expected['model']}/generate", body))
    compare.that("triton: generate", reply["text_output"] == expected["completion"])
    body["parameters"]["stream"] = True
    events = post(f"{url}/v2/models/{expected['model']}/generate_stream", body).split("\n\n")
    events = [json.loads(event.removeprefix("data: ")) for event in events if event]
    text = "".join(event["text_output"] for event in events)
    compare.that(f"triton: generate_stream, {len(events)} parts", text == expected["completion"] and len(events) > 3)


def post(url: str, body: dict) -> str:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return response.read().decode()


def check_triton_grpc(url: str, expected: dict, compare: Comparison) -> None:
    """tritonclient's stream: texts in parts and whole, and an error that doesn't end it."""
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    model = expected["model"]
    config = client.get_model_config(model).config
    compare.that("triton grpc: configuration", config.model_transaction_policy.decoupled and config.max_batch_size == 0)
    tensors = [tensor.name for tensor in client.get_model_metadata(model).inputs]
    compare.that("triton grpc: metadata", tensors[:2] == ["text_input", "stream"])
    received = queue.Queue()
    client.start_stream(callback=lambda result, error: received.put((result, error)))
    for in_parts in (True, False):
        client.async_stream_infer(
            model,
            [tensor("text_input", "BYTES", expected["prompt"].encode()), tensor("stream", "BOOL", in_parts)],
            request_id=str(in_parts),
            parameters={"max_tokens": expected["tokens"]},
            enable_empty_final_response=True,
        )
        texts = []
        while True:
            result, error = received.get(timeout=60)
            if error is not None:
                compare.that(f"triton grpc: {error}", False)
            response = result.get_response()
            if response.parameters["triton_final_response"].bool_param:
                break
            if response.id != str(in_parts):
                compare.that(f"triton grpc: {response.id} instead of the request's id", False)
            texts.append(result.as_numpy("text_output")[0].decode())
        right = "".join(texts) == expected["completion"] and (len(texts) > 3) == in_parts
        compare.that(f"triton grpc: {len(texts)} parts", right)
    client.async_stream_infer(model, [tensor("text_input", "BYTES", b"x")], parameters={"max_tokens": 1_000_000})
    _, error = received.get(timeout=60)
    compare.that(f"triton grpc: an error: {error}", error is not None and "1000000" in str(error))
    client.stop_stream()


def tensor(name: str, datatype: str, value) -> triton.InferInput:
    given = triton.InferInput(name, [1], datatype)
    given.set_data_from_numpy(numpy.array([value], object if datatype == "BYTES" else bool))
    return given


if __name__ == "__main__":
    main()
