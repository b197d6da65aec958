"""Texts of many lengths and languages for the goldens of real models."""

import random
from collections.abc import Callable

SHORT = [
    "",
    " ",
    "a",
    "Hello, world!",
    "🙂",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 thumbs",
    "https://example.org/path?query=1&other=two#part",
    'fn main() { println!("{:?}", 3.14e-10); }',
    "line one\nline two\ttabbed\r\nwindows",
    "Café naïve coöperate — “quoted” … fin",
    "cafe\u0301 combining and \u200bzero-width and \u00a0no-break",
    "[CLS] [SEP] [MASK] [UNK] [PAD] as text",
    "Pneumonoultramicroscopicsilicovolcanoconiosis " + "z" * 130,
]

SENTENCES = [
    "The committee will publish its findings on renewable energy before the end of the year.",
    "A man is playing a large flute while two children listen on the steps of the museum.",
    "Der Zug nach München hat wegen einer Signalstörung ungefähr vierzig Minuten Verspätung.",
    "Les élèves ont présenté leurs projets devant un jury composé de chercheurs et d'ingénieurs.",
    "El río creció tanto durante la noche que los vecinos tuvieron que abandonar sus casas.",
    "Il vecchio pescatore riparava le reti seduto davanti alla porta della sua casa.",
    "O médico explicou que a nova vacina precisa de duas doses com intervalo de um mês.",
    "Учёные обнаружили в ледяных кернах следы извержения, случившегося три тысячи лет назад.",
    "研究人员发现，睡眠不足会影响记忆力和注意力。",
    "昨日、友達と一緒に新しい図書館へ行きました。",
    "오늘은 날씨가 맑아서 공원에서 산책하기 좋습니다.",
    "تعلمت الطفلة العزف على العود من جدها في الصيف الماضي.",
    "हमारे गाँव में हर साल फसल कटने के बाद मेला लगता है।",
    "วันนี้อากาศดีมากเหมาะกับการเดินเล่นในสวน",
    "Η βιβλιοθήκη θα παραμείνει κλειστή μέχρι την επόμενη Δευτέρα.",
    "הרכבת הראשונה יוצאת מהתחנה המרכזית בשעה חמש בבוקר.",
    "Kỳ thi năm nay khó hơn nhiều so với những năm trước.",
    "Invoice 2024-0815: 3 × 19,99 € = 59,97 € (incl. 19 % VAT), due on 31/12/2024 🙂.",
]

LENGTHS = [16, 17, 31, 32, 33, 63, 64, 65, 100, 128, 200, 255, 256, 257, 300, 400, 511, 512]


SUBJECTS = [
    "The night nurse", "Our new supplier", "My grandmother", "A retired engineer", "The city council", "Their youngest player",
    "An anonymous reviewer", "The ferry captain", "Her physics teacher", "The restaurant's owner", "A group of volunteers",
    "The software update",
]
ACTIONS = [
    "cancelled the order", "wrote a letter of complaint", "found an old photograph", "refused to answer any question",
    "won the regional prize", "repaired the broken pump", "raised the price by 12 %", "waited for more than three hours",
    "deleted all of the backups", "planted forty apple trees", "changed the plan twice",
]
PLACES = ["in Lisbon", "at the station", "on the second floor", "near the border", "during the meeting", "before breakfast", "online"]
REASONS = [
    "", " because the invoice was wrong", " although nobody had asked for it", ", which surprised everyone who was there",
    " and then went home without saying a word to the people who had come from far away to help",
]


def of_everyday(count: int) -> list[str]:
    """`count` different sentences in plain English."""
    draw = random.Random(1)
    found: dict[str, None] = {}
    while len(found) < count:
        subject, action, place, reason = (draw.choice(part) for part in (SUBJECTS, ACTIONS, PLACES, REASONS))
        found[f"{subject} {action} {place}{reason}."] = None
    return list(found)


def of_length(tokens: int, count: Callable[[str], int], seed: int) -> str:
    """A text that `count` says has exactly `tokens` tokens: words of all languages, filled up with one-token words."""
    draw = random.Random(seed)
    text = ""
    while True:
        longer = f"{text} {draw.choice(SENTENCES)}".strip()
        if count(longer) > tokens:
            break
        text = longer
    while count(text) < tokens:
        text = f"{text} the".strip()
    return text


def all_texts(count: Callable[[str], int]) -> list[str]:
    """Two hundred texts less one: short ones, single sentences, texts of each of `LENGTHS`, and everyday sentences."""
    special = [*SHORT, *SENTENCES, *(of_length(length, count, seed=length) for length in LENGTHS)]
    return [*special, *of_everyday(199 - len(special))]
