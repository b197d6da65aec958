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
    """Fifty texts less one: short ones, single sentences, and texts of each of `LENGTHS`."""
    return [*SHORT, *SENTENCES, *(of_length(length, count, seed=length) for length in LENGTHS)]
