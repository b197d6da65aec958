"""huggingface_hub on every task, compared with what the pipelines of transformers answer."""

from collections.abc import Callable

from comparison import Comparison
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

# The golden replies have 6 digits.
TOLERANCE = 1e-4
# The client doesn't know these parameters.
UNKNOWN = {"truncate", "return_all_scores"}


def check(url: str, asks: list[dict], compare: Comparison) -> None:
    """Asks what the client can ask."""
    asked = {}
    for case in asks:
        method = METHODS.get(case["task"])
        body, reply = case["body"], case["reply"]
        inputs, parameters = body["inputs"], body.get("parameters", {})
        # The client takes one input at a time and one mask in it.
        nested = isinstance(reply, list) and reply and isinstance(reply[0], list) and case["task"] == "fill-mask"
        if method is None or not isinstance(inputs, str | dict) or nested or UNKNOWN & parameters.keys():
            continue
        if isinstance(inputs, dict) != (case["task"] == "question-answering"):
            continue
        if case["task"] == "zero-shot-classification" and "candidate_labels" not in parameters:
            continue
        client = InferenceClient(model=f"{url}/models/{case['model']}")
        what = f"huggingface_hub: {case['task']} {str(body)[:90]}"
        if reply is None:
            refused(what, lambda m=method, c=client, i=inputs, p=parameters: m(c, i, p), compare)
        else:
            answer = method(client, inputs, parameters)
            expected = reply[0] if case["task"] == "text-classification" else reply
            compare.reply(what, answer, expected, TOLERANCE)
        asked[case["task"]] = asked.get(case["task"], 0) + 1
    compare.that(f"huggingface_hub: asked {asked}", set(asked) == set(METHODS))


def refused(what: str, ask: Callable, compare: Comparison) -> None:
    """An error of the server, or one of the client before it asks."""
    try:
        answer = ask()
    except HfHubHTTPError as error:
        status = error.response.status_code
        compare.that(f"{what}: {status} {error.response.json()['error'][:60]}", status in (400, 422))
    except ValueError as error:
        compare.that(f"{what}: refused by the client: {error}", True)
    else:
        compare.that(f"{what}: {answer} instead of an error", False)


def answer_questions(client: InferenceClient, inputs: dict, parameters: dict):
    """question-answering, whose inputs are two."""
    return client.question_answering(question=inputs["question"], context=inputs["context"], **parameters)


def zero_shot(client: InferenceClient, text: str, parameters: dict):
    """zero-shot-classification, whose labels may be one text with commas."""
    labels = parameters["candidate_labels"]
    labels = [label.strip() for label in labels.split(",") if label.strip()] if isinstance(labels, str) else labels
    rest = {key: value for key, value in parameters.items() if key != "candidate_labels"}
    return client.zero_shot_classification(text, labels, **rest)


METHODS: dict[str, Callable] = {
    "text-classification": lambda client, text, parameters: client.text_classification(text, **parameters),
    "token-classification": lambda client, text, parameters: client.token_classification(text, **parameters),
    "question-answering": answer_questions,
    "fill-mask": lambda client, text, parameters: client.fill_mask(text, **parameters),
    "zero-shot-classification": zero_shot,
}
