"""Goldens of chat templates: what transformers makes of conversations by the templates in `templates/`.

Those are written for the tests, in the ways of speaking that well-known models have. `answers.json.gz` has for each template
and conversation the text, or that there is none.
"""

import gzip
import json
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

SYSTEM = {"role": "system", "content": " You answer in one word. "}
FIRST = {"role": "user", "content": "What is the capital of France?"}
SECOND = {"role": "assistant", "content": "  Paris.\n"}
THIRD = {"role": "user", "content": "And of Österreich? 🙂 \n\n\tplease "}
PARTS = {"role": "user", "content": [{"type": "text", "text": " Two "}, {"type": "text", "text": "parts"}]}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"where": "Ö \"<&'", "deep": [1, 2.5, None, True]}}}

CONVERSATIONS = {
    "question": [FIRST],
    "system": [SYSTEM, FIRST],
    "turns": [FIRST, SECOND, THIRD],
    "all": [SYSTEM, FIRST, SECOND, THIRD, {"role": "assistant", "content": "Wien."}, FIRST],
    "answered": [SYSTEM, FIRST, SECOND],
    "system later": [FIRST, SECOND, SYSTEM, FIRST],
    "twice": [FIRST, THIRD],
    "named": [{"role": "user", "name": "Ada", "content": "Hello"}],
    "empty text": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    "cook": [{"role": "cook", "content": "Soup's ready: <b>now</b> & \"hot\""}],
    "parts": [PARTS],
    "system parts": [{"role": "system", "content": PARTS["content"]}, PARTS, SECOND],
    "thoughts": [
        FIRST,
        {"role": "assistant", "content": "<think>\nIt is in France.\n</think>\n\nParis."},
        THIRD,
        {"role": "assistant", "content": "<think>\n\nHm.\n</think>\n\nWien.", "reasoning_content": None},
    ],
    "reasons": [FIRST, {"role": "assistant", "content": "\nParis.", "reasoning_content": "\nEasy.\n"}],
    "tools": [
        FIRST,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": {"degrees": 21.5, "sky": ["blue", "grey"]}},
        SECOND,
    ],
    "none": [],
    "no content": [{"role": "user"}],
    "null content": [{"role": "user", "content": None}],
}

VARIABLES = [{}, {"enable_thinking": False, "date_string": "1 Jan 2026", "eos_token": "<end>"}]


def write(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    answers = []
    for path in sorted((folder / "templates").glob("*.jinja")):
        tokenizer.chat_template = path.read_text(encoding="utf-8")
        for name, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                for variables in VARIABLES:
                    case = {"template": path.stem, "conversation": name, "prompt": prompt, "variables": variables}
                    answers.append({**case, "text": render(tokenizer, messages, prompt, variables)})
    special = {name: value for name, value in tokenizer.special_tokens_map.items()}
    content = {"special": special, "conversations": CONVERSATIONS, "answers": answers}
    path = folder / "answers.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0))
    refused = sum(answer["text"] is None for answer in answers)
    print(f"{path}: {len(answers)} answers, {refused} of them refusals")


def render(tokenizer: PreTrainedTokenizerFast, messages: list, prompt: bool, variables: dict) -> str | None:
    """The text; none where the template doesn't take the conversation."""
    try:
        # transformers tells one conversation from several by its first message; an empty one is given as one of several.
        return tokenizer.apply_chat_template([messages], tokenize=False, add_generation_prompt=prompt, **variables)[0]
    except Exception:
        return None
