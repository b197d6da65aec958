"""What the tasks are asked in the fixtures of the pipelines."""

from tiny_cases import LONG, PAIRS

TEXTS = [
    "",
    " ",
    "today",
    "The quick brown fox jumps over the lazy dog.",
    "Das Wetter ist heute schön, nicht wahr?",
    "今天天气很好 日本語",
    "привет, мир ёлка",
    "שלום עולם today مرحبا",
    "I love 😀 and 👩‍👩‍👧 in the house 🚀!",
    "unknownwordsaresplit jumpsing lovelyest",
    "a\u0301 e\u0301cole na\u00efve ﬁne İstanbul",
    "  two  spaces\tand\nlines ",
    "[MASK] and [CLS] are <s> words <mask>",
    "we they [unk] Ω ∑ the fox",
    "e-mail@example.org, 3.14 €5 (a/b)",
]
STRATEGIES = ["none", "simple", "first", "average", "max"]
LONGER = "the quick brown fox in the house will love the lazy dog and today the weather is not great " * 4


def _body(inputs, **parameters) -> dict:
    return {"inputs": inputs} | ({"parameters": parameters} if parameters else {})


def _token_classification() -> list[dict]:
    rotate = [(text, STRATEGIES[index % len(STRATEGIES)]) for index, text in enumerate(TEXTS)]
    fixed = [(text, strategy) for text in (TEXTS[3], TEXTS[8], TEXTS[10]) for strategy in STRATEGIES]
    return [
        *[_body(text) for text in TEXTS[:8]],
        *[_body(text, aggregation_strategy=strategy) for text, strategy in rotate + fixed],
        _body(TEXTS[:4]),
        _body([TEXTS[8]], aggregation_strategy="max"),
        _body([]),
        _body(TEXTS[3], ignore_labels=[]),
        _body(TEXTS[3], ignore_labels=["PER", "O"]),
        _body(TEXTS[3], ignore_labels=["B-PER"], aggregation_strategy="none"),
        _body(TEXTS[4], ignore_labels=[], aggregation_strategy="first"),
        _body(LONG),
        _body(LONG, aggregation_strategy="none"),
        *[_body(LONG, stride=stride) for stride in (0, 1, 8, 30)],
        *[_body(LONGER, stride=12, aggregation_strategy=strategy) for strategy in STRATEGIES],
        _body(LONGER, stride=5, ignore_labels=[]),
        _body(LONGER, stride=46),
        _body(LONGER, stride=47),
        _body(LONGER, stride=48),
        _body(TEXTS[3], stride=10),
        _body(TEXTS[3], aggregation_strategy="last"),
        _body(5),
    ]


def _question_answering() -> list[dict]:
    def ask(question: str, context: str, **parameters) -> dict:
        return _body({"question": question, "context": context}, **parameters)

    question = "what is the weather"
    context = "The weather is good today, the quick brown fox jumps over the lazy dog and we love the house."
    return [
        *[ask(question, text) for text in TEXTS[2:]],
        *[ask(text, context, doc_stride=2) for text in TEXTS[3:]],
        ask(TEXTS[14], context),
        ask(question, " "),
        ask(question, " ", top_k=3),
        ask("", context),
        ask(question, ""),
        ask(" ", context),
        ask(question, context, align_to_words=False),
        ask(question, "unknownwordsaresplit jumpsing lovelyest", align_to_words=False),
        ask(question, TEXTS[8], align_to_words=False),
        ask(question, context, top_k=2),
        ask(question, context, top_k=3),
        ask(question, context, top_k=4, align_to_words=False),
        ask(question, context, top_k=1),
        ask(question, context, top_k=0),
        ask(question, context, max_answer_len=1),
        ask(question, context, max_answer_len=2, top_k=2),
        ask(question, context, max_answer_len=0),
        ask(question, context, handle_impossible_answer=True),
        ask(question, context, handle_impossible_answer=True, top_k=3),
        ask(question, LONG),
        ask(question, LONGER),
        ask(question, LONGER, top_k=3),
        ask(question, LONGER, handle_impossible_answer=True, top_k=2),
        ask(question, LONGER, doc_stride=4),
        ask(question, LONGER, doc_stride=10, max_seq_len=32, top_k=2),
        ask(question, LONGER, max_seq_len=20),
        ask(question, LONGER, max_seq_len=8),
        ask(question, LONGER, max_seq_len=4),
        ask(question, LONGER, doc_stride=60),
        ask(question, LONGER, doc_stride=40),
        ask(LONGER, context),
        ask(question, LONGER, align_to_words=False, max_answer_len=4),
        ask(question, context, max_question_len=64),
        ask(question, "day day Day DAY day fox day", top_k=3, max_answer_len=1),
        _body([{"question": question, "context": context}, {"question": question, "context": LONG}]),
    ]


def _fill_mask(mask: str, other: str) -> list[dict]:
    return [
        _body(f"the {mask} is good"),
        _body(f"{mask}"),
        _body(f"the quick brown {mask} jumps over the lazy dog."),
        _body(f"Das Wetter ist heute {mask}, nicht wahr?"),
        _body(f"今天天气{mask}好 日本語"),
        _body(f"привет, {mask} ёлка"),
        _body(f"שלום {mask} today مرحبا"),
        _body(f"I love 😀 and {mask} in the house 🚀!"),
        _body(f"unknownwordsare{mask}split", top_k=2),
        _body(f"the {mask} is {mask} and {mask}"),
        _body(f"the {mask} is {mask}", top_k=1),
        _body(f"  two  spaces {mask}\tand\nlines ", top_k=3),
        _body(f"the {mask} is good", top_k=1),
        _body(f"the {mask} is good", top_k=20),
        _body(f"the {mask} is good", top_k=273),
        _body(f"the {mask} is good", top_k=274),
        _body(f"the {mask} is good", targets=["good", "bad", "weather"]),
        _body(f"the {mask} is good", targets="fox"),
        _body(f"the {mask} is good", targets=["##ing", "Ġthe", "[SEP]", "</s>"]),
        _body(f"the {mask} is good", targets=["unknownwords", "€5", "今天"]),
        _body(f"the {mask} is good", targets=["good", "good", "fox"], top_k=2),
        _body(f"the {mask} is good", targets=["", "fox"]),
        _body(f"the {mask} is good", targets=[""]),
        _body(f"the {mask} is good", targets=[]),
        _body(f"the {mask} is {mask}", targets=["good", "bad", "fox"], top_k=2),
        _body([f"the {mask} is good", f"a {mask} dog"]),
        _body([f"the {mask} is good"], top_k=2),
        _body([f"the {mask} is good", f"a {mask} is a {mask}"], top_k=2),
        _body(f"the {mask} is [CLS] good [SEP] <s> fox </s>", top_k=2),
        _body(f"e-mail@{mask}.org, 3.14 €5 (a/b)", top_k=2),
        _body(f"{mask} {LONG}"),
        _body(f"{mask} {LONG}", truncate=True),
        _body(f"{LONG} {mask}", truncate=True),
        _body(f"what {mask} the weather today?", top_k=4),
        _body(f"{mask} {mask}", top_k=3),
        _body(f"we love {mask}!", targets=["film", "house"]),
        _body(f"год {mask} мир", top_k=10),
        _body(f"{mask}日本語", top_k=2),
        _body(f"(a) {mask} (b) isn't {mask}, it 's", top_k=3),
        _body(f"we {mask}", targets=["they", "we", "dog", "cat"], top_k=3),
        _body(f"א {mask} ב", top_k=2),
        _body(f"fox \u00a0{mask}\u200b.", top_k=2),
        _body([f"{mask}", f"the {mask}"], targets=["house", "fox"]),
        _body(f"the {other} is good"),
        _body("no place to fill"),
        _body(""),
        _body([f"the {mask}", "none here"]),
    ]


def _zero_shot() -> list[dict]:
    labels = ["good weather", "film", "lazy dog", "time"]
    text = TEXTS[3]
    return [
        *[_body(text, candidate_labels=labels) for text in TEXTS],
        *[_body(text, candidate_labels=labels, multi_label=True) for text in TEXTS[2:10]],
        _body(text, candidate_labels="good weather, film,lazy dog , ,time"),
        _body(text, candidate_labels="film"),
        _body(text, candidate_labels=["film"]),
        _body(text, candidate_labels=["film"], multi_label=True),
        _body(text, candidate_labels=["今天", "😀", "мир", "שלום"]),
        _body(text, candidate_labels=["", "film"]),
        _body(text, candidate_labels=[]),
        _body(text, candidate_labels=""),
        _body(text, candidate_labels=" , "),
        _body(text, candidate_labels=labels, hypothesis_template="{} is great"),
        _body(text, candidate_labels=labels, hypothesis_template="{}"),
        _body(text, candidate_labels=labels, hypothesis_template="{0} and {0}"),
        _body(text, candidate_labels=labels, hypothesis_template="{{}} in {}"),
        _body(text, candidate_labels=labels, hypothesis_template="no place"),
        _body(text, candidate_labels=labels, hypothesis_template="{} and {}"),
        _body(text, candidate_labels=labels, hypothesis_template="{"),
        _body(text, candidate_labels=labels, hypothesis_template="{1}"),
        _body(text, candidate_labels=labels, hypothesis_template="{name}"),
        _body(text, candidate_labels=labels, hypothesis_template="a } b {}"),
        _body(LONG, candidate_labels=labels),
        _body(LONG, candidate_labels=labels, multi_label=True),
        _body(text, candidate_labels=[*labels, LONG]),
        _body(["today", LONG], candidate_labels=labels),
        _body(["today"], candidate_labels=labels),
        _body([], candidate_labels=labels),
        _body(text),
    ]


def _text_classification() -> list[dict]:
    pairs = [{"text": text, "text_pair": pair} for text, pair in PAIRS]
    text = TEXTS[3]
    return [
        *[_body(text) for text in [*TEXTS, LONG]],
        *[_body(pair) for pair in pairs],
        *[_body(text, top_k=top_k) for top_k in (None, 1, 2, 3, 50)],
        *[_body(text, function_to_apply=function) for function in ("softmax", "sigmoid", "none", "SIGMOID")],
        _body(text, function_to_apply="relu"),
        _body(text, function_to_apply="sigmoid", top_k=2),
        _body(text, return_all_scores=True),
        _body(text, return_all_scores=False),
        _body(text, return_all_scores=True, top_k=2),
        _body(TEXTS[3:6]),
        _body([TEXTS[3]], top_k=1),
        _body([pairs[0], text], top_k=1),
        _body({"text": "", "text_pair": ""}),
        _body({"text": text}),
        _body({"text": "привет", "text_pair": "今天"}, top_k=2),
    ]


def _text_ranking() -> list[dict]:
    texts = ["the weather is good", "a good film", "我 今天天气很好", "", "the quick brown fox jumps over the lazy dog", "🚀 мир"]
    query = "how is the weather today"

    def ask(query: str, texts: list, **parameters) -> dict:
        return _body({"query": query, "texts": texts}, **parameters)

    return [
        *[ask(text, texts) for text in TEXTS],
        *[ask(text, TEXTS[3:10]) for text in TEXTS[3:12]],
        ask(query, texts),
        ask(query, texts[:1]),
        ask(query, [LONG, "short"]),
        ask(LONG, texts),
        ask(LONG, [LONG, "today " * 20]),
        *[ask(query, texts, top_k=top_k) for top_k in (1, 2, 6, 50)],
        ask(query, texts, return_documents=True),
        ask(query, TEXTS[3:], return_documents=True, top_k=3),
        ask(query, texts, raw_scores=True),
        ask(query, texts, raw_scores=True, top_k=2),
        _body({"source_sentence": query, "sentences": texts}),
        _body({"query": query, "documents": texts}),
        _body({"query": query, "documents": [{"text": text} for text in texts]}, return_documents=True),
    ]


def _sparse() -> list[dict]:
    return [*[_body(text) for text in [*TEXTS[2:], LONG]], _body(TEXTS[3:6])]


def _embedding() -> list[dict]:
    return [
        *[_body(text) for text in TEXTS[2:8]],
        *[_body(text, prompt_name=name) for text in TEXTS[2:5] for name in ("query", "document")],
        *[_body(TEXTS[3], dimensions=size, normalize=normalize) for size in (1, 8, 48) for normalize in (True, False)],
        _body(TEXTS[3:6], dimensions=8, normalize=True, prompt_name="query"),
    ]


ASKS = {
    "token-classification": _token_classification(),
    "question-answering": _question_answering(),
    "fill-mask": _fill_mask("[MASK]", "<mask>"),
    "fill-mask-bytes": _fill_mask("<mask>", "[MASK]"),
    "zero-shot-classification": _zero_shot(),
    "text-classification": _text_classification(),
    "text-ranking": _text_ranking(),
    "sparse": _sparse(),
    "embedding": _embedding(),
}
