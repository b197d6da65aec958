#!/usr/bin/env python3
"""Measures `centuple dedupe` on texts with planted duplicates: precision, recall, peak memory, time.

    python3 scripts/dedupe_eval.py target/release/centuple --lines 100000 --sources TEXTS.jsonl PAIRS.tsv

A base is a text of the sources, cut to 60 words, that shares less than half of its words with any other; without --sources it is
a sentence of this script's own making. A planted duplicate is a base after one to three edits that keep its meaning: other
case or punctuation, a synonym, a filler word more or less, two words swapped, a typo, sentences in another order. A base and
its duplicates are one planted cluster. Everything else that the command joins counts as wrong. `--bases tune` takes one half
of the bases to choose a threshold on, `--bases test` the other.

`--hard` makes bases of one to three sentences instead, of which each is in many texts: two texts may have half of their
words in common, or tell other facts in the same words. `--facts` asks how often sentences that differ in one to three facts
of five are joined: to an embedding, they say almost the same.
"""

import argparse
import collections
import csv
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYNONYMS = {
    "said": "stated", "says": "states", "big": "large", "large": "big", "small": "little", "begin": "start", "start": "begin",
    "buy": "purchase", "help": "assist", "near": "close to", "show": "demonstrate", "shows": "demonstrates", "use": "employ",
    "used": "employed", "fast": "quick", "quick": "fast", "man": "guy", "woman": "lady", "kid": "child", "movie": "film",
    "film": "movie", "great": "terrific", "bad": "poor", "about": "around", "because": "since", "but": "yet",
    "however": "nevertheless", "many": "numerous", "often": "frequently", "also": "additionally", "children": "kids",
    "picture": "photo", "car": "automobile", "announced": "made public", "workers": "employees", "new": "brand-new",
    "hard": "difficult", "whole": "entire", "method": "approach", "paper": "article", "method's": "approach's",
    "results": "findings", "improve": "enhance", "propose": "suggest", "is not": "isn't", "do not": "don't",
}
FILLERS = ["also", "indeed", "actually", "of course", "in fact", "just", "clearly"]
DROPPABLE = {"the", "a", "an", "very", "really", "just", "also", "quite", "actually", "that", "so", "indeed"}

FIRMS = ["Alvera", "Borealis Rail", "Cantor Foods", "Delmore Steel", "Elbe Shipping", "Fjordbank", "Grenville Motors", "Helix Pharma",
         "Ironbridge Mining", "Juniper Airlines", "Kestrel Software", "Lumen Optics", "Marlow Paper", "Northgate Insurance",
         "Orchard Farms", "Pinnacle Hotels", "Quarry Cement", "Riverton Gas", "Sable Textiles", "Tidewater Energy"]
CITIES = ["Aarhus", "Bilbao", "Cork", "Dresden", "Edmonton", "Florence", "Ghent", "Hanoi", "Izmir", "Jakarta", "Kyoto", "Lima",
          "Madras", "Nairobi", "Oslo", "Porto", "Quito", "Riga", "Seville", "Tampere", "Utrecht", "Valletta", "Warsaw", "Zagreb"]
PLACES = ["a bakery", "a bridge over the river", "a clinic for children", "a data centre", "an electric bus line", "a ferry terminal",
          "a glass factory", "a harbour museum", "an ice rink", "a language school", "a nature reserve", "an opera house",
          "a post office", "a railway tunnel", "a solar park", "a tennis stadium", "a university library", "a vineyard",
          "a water treatment plant", "a zoo for reptiles"]
VERBS = ["opened", "closed", "sold", "postponed", "insured", "rebuilt", "inspected", "abandoned"]
REASONS = ["after a fire last winter", "to win back tourists", "because fuel has become dear", "under pressure from neighbours",
           "with a loan from the state", "following a court ruling", "despite protests of farmers", "ahead of the elections",
           "as part of a climate plan", "since the old owner died", "to settle a tax dispute", "for its anniversary"]
PEOPLE = ["a retired judge", "two students", "the finance minister", "a violinist", "a young goalkeeper", "three fishermen",
          "a nurse", "the chess champion", "a truck driver", "an astronomer", "a pastry chef", "the union leader", "a tailor",
          "a biology teacher", "the crown prince", "a stuntman", "an auctioneer", "a beekeeper"]
DEEDS = ["won a lottery of four million", "was bitten by a stray dog", "broke a swimming record", "gave a speech on hunger",
         "found a Roman coin", "lost an appeal over unpaid rent", "learned to fly a glider", "adopted twins", "planted a forest",
         "wrote a cookbook", "repaired a church clock", "was accused of smuggling gold", "rescued a family from a flood",
         "discovered a comet", "quit over a salary dispute", "painted a mural of whales"]
TIMES = ["during the carnival", "on the first day of school", "in heavy snow", "at dawn", "in the middle of a heatwave",
         "during a general strike", "on election night", "over the Easter holidays", "while the power was out", "at a wedding"]
REACTIONS = ["neighbours were delighted", "the police had no comment", "a newspaper called it a scandal", "friends did not believe it",
             "a film is being made of it", "parliament will debate the matter", "doctors warned against copying it",
             "the king sent a telegram", "thousands shared the video", "insurers refused to pay"]
THINGS = ["kettle", "tent", "pair of headphones", "lawn mower", "phone", "office chair", "winter coat", "novel", "bicycle lock",
          "coffee grinder", "suitcase", "board game", "desk lamp", "toy train", "mattress", "camera", "frying pan", "watch"]
FAULTS = ["broke after a week", "smells of rubber", "is louder than a train", "arrived without a manual", "leaks when it is tilted",
          "lasts longer than promised", "looks better than in the pictures", "is far too small", "works in the dark",
          "survived a fall from the balcony", "gets hot within minutes", "was already scratched"]
USERS = ["my grandmother", "our dog", "the whole office", "my flatmate", "a colleague in accounting", "our neighbours", "my son",
         "the football team", "my boss", "the children next door"]
OPINIONS = ["wants a second one", "refuses to touch it", "laughs about it every day", "gave it away at once", "hides it from guests",
            "would pay twice as much", "is writing a complaint", "uses it for something else", "found a cheaper one", "fell in love with it"]

# Sentences in the same words on different facts.
REPORTS = [
    ("{0} has {1} {2} in {3} {4}, the company said on Tuesday.", [FIRMS, VERBS, PLACES, CITIES, REASONS]),
    ("{3}, {0} in {1} {2}, and {4}.", [PEOPLE, CITIES, DEEDS, [time.capitalize() for time in TIMES], REACTIONS]),
    ("The {0} that I bought in {4} {1}, but {2} {3}.", [THINGS, FAULTS, USERS, OPINIONS, CITIES]),
    ("Scientists from {0} found that {1} who {2} {3} owned a {4}.", [CITIES, PEOPLE, DEEDS, TIMES, THINGS]),
    ("{0} of {1} must pay {2} because its {3} {4}.", [FIRMS, CITIES, PEOPLE, THINGS, FAULTS]),
]


def report(rng):
    """Which report, and its facts."""
    kind = rng.randrange(len(REPORTS))
    return kind, tuple(rng.choice(facts) for facts in REPORTS[kind][1])


def told(kind, facts):
    return REPORTS[kind][0].format(*facts)


def different_reports(rng, tries):
    """Reports of which two of the same kind differ in at least three of their five facts."""
    texts, known = [], set()
    for _ in range(tries):
        kind, facts = report(rng)
        shared = {(kind, three, *(facts[place] for place in three)) for three in itertools.combinations(range(5), 3)}
        if known.isdisjoint(shared):
            known |= shared
            texts.append(told(kind, facts))
    return texts


def sentences_of(text):
    parts = [part.strip() for part in re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", text))]
    return [" ".join(part.split()[:40]) for part in parts if 6 <= len(part.split())]


def read_sources(paths):
    """Whole texts, cut to 60 words. Of a pair that people found to say about the same (a score of 3.5 of 5) only one."""
    texts = []
    for path in paths:
        if path.suffix == ".tsv":
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                    texts.append(row.get("sentence1") or row.get("text"))
                    if row.get("sentence2") and float(row.get("score") or 5) < 3.5:
                        texts.append(row["sentence2"])
        else:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    value = json.loads(line)
                    texts.append(value.get("text") or value.get("inputs"))
    return [" ".join(text.split()[:60]) for text in texts if text and len(text.split()) >= 4]


def unlike(texts):
    """Texts of which none has most words of an earlier one."""
    kept, by_word = [], collections.defaultdict(list)
    for text in texts:
        words = set(re.findall(r"\w+", text.lower()))
        rare = sorted(words, key=len)[-4:]
        near = {other for word in rare for other in by_word[word]}
        if any(len(words & kept[other][1]) >= 0.5 * len(words | kept[other][1]) for other in near):
            continue
        for word in rare:
            by_word[word].append(len(kept))
        kept.append((text, words))
    return [text for text, _ in kept]


class Bases:
    """Texts that say different things: two have one sentence in common at most, about half of each."""

    def __init__(self, rng, sentences):
        self.rng = rng
        self.sentences = sorted(sentences, key=lambda sentence: len(sentence.split()))
        self.singles = rng.sample(self.sentences, len(sentences) // 2)
        alone = set(self.singles)
        self.sentences = [sentence for sentence in self.sentences if sentence not in alone]
        self.used = set()

    def near(self, place):
        """The place of a sentence of about the same length."""
        place += self.rng.randrange(-400, 401)
        return min(max(place, 0), len(self.sentences) - 1)

    def base(self):
        """Sentences of a text."""
        if self.singles and self.rng.random() < 0.15:
            return [self.singles.pop()]
        return self.composed([self.rng.randrange(len(self.sentences))])

    def composed(self, begin):
        """Sentences of a text that begins with one of them."""
        while True:
            count = self.rng.choice([2, 2, 3])
            places = begin + [self.near(begin[0]) for _ in range(count - 1)]
            couples = {frozenset(couple) for couple in itertools.combinations(places, 2)}
            if len({self.sentences[place] for place in places}) == count and self.used.isdisjoint(couples):
                self.used |= couples
                return [self.sentences[place] for place in places]

    def negative(self, parts):
        """A text that has its first sentence in common with another."""
        return self.composed([self.sentences.index(parts[0])])


def edited(rng, parts):
    """A text that says the same."""
    original = " ".join(parts)
    while True:
        parts_now = list(parts)
        for edit in rng.sample(EDITS, rng.choice([1, 1, 2, 2, 3])):
            parts_now = edit(rng, parts_now)
        text = " ".join(parts_now)
        if text != original:
            return text


def in_words(edit):
    """An edit of the words of one sentence."""
    def of_parts(rng, parts):
        place = rng.randrange(len(parts))
        words = edit(rng, parts[place].split())
        return parts[:place] + [" ".join(words)] + parts[place + 1:]
    return of_parts


def change_case(rng, parts):
    change = rng.choice([str.lower, str.upper, str.capitalize, str.title])
    return [change(part) for part in parts] if rng.random() < 0.5 else [change(parts[0]), *parts[1:]]


def change_punctuation(rng, parts):
    change = rng.choice([lambda part: part.rstrip(".!?"), lambda part: part.replace(",", ""), lambda part: part.rstrip(".") + "!",
                         lambda part: f'"{part}"', lambda part: part.replace(" ", "  ", 2), lambda part: part.rstrip(".") + " ..."])
    return [change(part) for part in parts]


@in_words
def use_synonym(rng, words):
    places = [place for place, word in enumerate(words) if word.lower() in SYNONYMS]
    for place in rng.sample(places, min(2, len(places))):
        words[place] = SYNONYMS[words[place].lower()]
    return words


@in_words
def drop_word(rng, words):
    places = [place for place, word in enumerate(words) if word.lower() in DROPPABLE]
    if places:
        words.pop(rng.choice(places))
    return words


@in_words
def insert_word(rng, words):
    words.insert(rng.randrange(1, len(words)), rng.choice(FILLERS))
    return words


@in_words
def swap_words(rng, words):
    place = rng.randrange(len(words) - 1)
    words[place], words[place + 1] = words[place + 1], words[place]
    return words


@in_words
def make_typo(rng, words):
    places = [place for place, word in enumerate(words) if len(word) >= 6 and word.isalpha() and word.islower()]
    if places:
        place = rng.choice(places)
        word, at = words[place], rng.randrange(1, len(words[place]) - 2)
        kind = rng.randrange(3)
        if kind == 0:
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2:]
        elif kind == 1:
            words[place] = word[:at] + word[at + 1:]
        else:
            words[place] = word[:at] + word[at] + word[at:]
    return words


def reorder(rng, parts):
    parts = list(parts)
    rng.shuffle(parts)
    return parts


EDITS = [change_case, change_punctuation, use_synonym, drop_word, insert_word, swap_words, make_typo, reorder]


def sampled(rng, texts, lines):
    """Texts and the cluster of each, in random order: bases sampled and edited until there are enough. Three in ten bases have
    no duplicate, the others some or many (Pareto)."""
    weights = [0 if rng.random() < 0.3 else min(rng.paretovariate(1.2), 20) for _ in texts]
    found = [(text, cluster) for cluster, text in enumerate(texts)]
    for cluster in rng.choices(range(len(texts)), weights, k=max(0, lines - len(texts))):
        text = texts[cluster]
        parts = sentences_of(text) if len(sentences_of(text)) > 1 else [text]
        found.append((text if rng.random() < 0.1 else edited(rng, parts), cluster))
    rng.shuffle(found)
    return found[:lines]


def hard(rng, sentences, lines):
    """The same of bases that share sentences and turns of phrase: two fifths are duplicates."""
    bases, texts, cluster = Bases(rng, sentences), [], 0
    while len(texts) < lines:
        parts = bases.base()
        texts.append((" ".join(parts), cluster))
        for _ in range(rng.choice([0, 0, 0, 0, 0, 1, 1, 2, 4])):
            copy = " ".join(parts) if rng.random() < 0.1 else edited(rng, parts)
            texts.append((copy, cluster))
        cluster += 1
        if len(parts) > 1 and rng.random() < 0.35:
            texts.append((" ".join(bases.negative(parts)), cluster))
            cluster += 1
    texts = texts[:lines]
    rng.shuffle(texts)
    return texts


def make_texts(arguments, rng):
    if arguments.hard:
        own = different_reports(rng, 1000 if arguments.sources else 60_000)
        sentences = [sentence for text in read_sources(arguments.sources) for sentence in sentences_of(text)]
        return hard(rng, unlike(sentences) + own, arguments.lines)
    texts = unlike(read_sources(arguments.sources)) if arguments.sources else different_reports(rng, 60_000)
    rng.shuffle(texts)
    half = len(texts) // 2
    texts = {"all": texts, "tune": texts[:half], "test": texts[half:]}[arguments.bases]
    return sampled(rng, texts, arguments.lines)


def dedupe(arguments, texts, threshold, folder):
    """Runs the command; the representative of each line, seconds and peak bytes."""
    source, answers = folder / "texts.jsonl", folder / "answers.jsonl"
    with open(source, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text, _ in texts)
    command = [arguments.binary, "dedupe", str(source), *arguments.flags.split()]
    command += ["--threshold", str(threshold)] if threshold else []
    command += ["--model", arguments.model] if arguments.model else []
    begin = time.monotonic()
    with open(answers, "wb") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    if status != 0:
        sys.exit(f"the command failed: {command}")
    with open(answers, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    assert [answer["line"] for answer in found] == list(range(1, len(texts) + 1)), "a line is missing"
    return [answer["representative"] for answer in found], seconds, usage.ru_maxrss * 1024


def pairs(groups):
    return sum(size * (size - 1) // 2 for size in collections.Counter(groups).values())


def score(texts, found):
    truth = [cluster for _, cluster in texts]
    both = pairs(list(zip(truth, found)))
    members = collections.defaultdict(set)
    for place, cluster in enumerate(truth):
        members[cluster].add(place)
    joined = collections.defaultdict(set)
    for place, representative in enumerate(found):
        joined[representative].add(place)
    pure = [len({truth[place] for place in group}) == 1 for group in joined.values() if len(group) > 1]
    whole = [len({found[place] for place in group}) == 1 for group in members.values() if len(group) > 1]
    return {"pair precision": both / max(1, pairs(found)), "pair recall": both / max(1, pairs(truth)),
            "cluster precision": sum(pure) / max(1, len(pure)), "cluster recall": sum(whole) / max(1, len(whole))}


def facts_apart(rng, count):
    """Pairs of reports that differ in one, two or three facts; of each pair how many."""
    texts, apart = [], []
    for number in range(count):
        kind, facts = report(rng)
        places = rng.sample(range(5), 1 + number % 3)
        other = list(facts)
        for place in places:
            other[place] = rng.choice([fact for fact in REPORTS[kind][1][place] if fact != facts[place]])
        texts += [(told(kind, facts), 2 * number), (told(kind, other), 2 * number + 1)]
        apart.append(len(places))
    return texts, apart


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="the command centuple")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--sources", type=Path, nargs="*", default=[], help="JSON Lines with text or inputs, TSV with sentence1 or text")
    parser.add_argument("--threshold", type=float, nargs="*", default=[None], help="by default the command's own")
    parser.add_argument("--model")
    parser.add_argument("--flags", default="", help="more flags of the command, as '--precision int8'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--facts", action="store_true", help="ask how often texts that differ in one fact are joined")
    parser.add_argument("--bases", choices=["all", "tune", "test"], default="all", help="a half to choose the threshold on, or the other")
    parser.add_argument("--hard", action="store_true", help="texts that share sentences with others")
    parser.add_argument("--write", type=Path, help="only write the texts with their clusters, as JSON Lines")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    texts = make_texts(arguments, rng)
    if arguments.write:
        with open(arguments.write, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text, "cluster": cluster}) + "\n" for text, cluster in texts)
        return
    with tempfile.TemporaryDirectory() as folder:
        for threshold in arguments.threshold:
            found, seconds, peak = dedupe(arguments, texts, threshold, Path(folder))
            bound = 1_000_000_000 + 512 * len(texts)
            figures = "  ".join(f"{name} {value:.4f}" for name, value in score(texts, found).items())
            print(f"{len(texts)} lines, threshold {threshold or 'default'}: {figures}  {seconds:.1f} s, "
                  f"peak {peak / 1e6:.0f} MB of {bound / 1e6:.0f} MB", flush=True)
            if arguments.facts:
                couples, apart = facts_apart(random.Random(arguments.seed), 600)
                found, _, _ = dedupe(arguments, couples, threshold, Path(folder))
                for count in (1, 2, 3):
                    same = [found[2 * number] == found[2 * number + 1] for number, of in enumerate(apart) if of == count]
                    print(f"  {count} of 5 facts differ: {sum(same) / len(same):.2f} are joined", flush=True)


if __name__ == "__main__":
    main()
