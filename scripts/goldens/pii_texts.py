"""Texts with made-up names, addresses and numbers, for a model that finds them."""

import random

NAMES = ["Amara", "Liam", "Sofía", "Jürgen", "Priya", "Chen", "Fatima", "Noah", "Zoë", "Dmitri", "Aoife", "Kwame"]
SURNAMES = ["Okafor", "Lindqvist", "García", "Müller", "Raman", "Wei", "Haddad", "O'Neill", "Nakamura", "Petrov", "Smith-Jones", "Mensah"]
STREETS = ["Maple Street", "Rue de la Paix", "Hauptstraße", "Elm Avenue", "Harbour Road", "Via Garibaldi"]
CITIES = ["Springfield", "Lisbon", "Köln", "Nairobi", "Portland", "Galway"]
STATES = ["Oregon", "NSW", "Bavaria", "TX", "Ontario"]
TEMPLATES = [
    "My name is {name} {surname} and I live at {number} {street}, {city}, {state} {zip}.",
    "Please send the parcel to {surname}, {name}; flat {small}, {number} {street}, {city}.",
    "You can reach me at {mail} or {phone}.",
    "{name}'s passport number is {passport}, issued in {city}.",
    "SSN: {ssn}, routing number {routing}, account {account}.",
    "Driver's licence {licence} belongs to {name} {surname}.",
    "See https://{host}/users/{mailname}?id={account} for details of {name}.",
    "Call {phone}, ask for Dr. {surname}, suite {small}.",
    "dear {name},\nthanks for your order.\nbest, {surname}\t{mail}",
    "The invoice of {number} dollars was paid on Monday, nobody was named.",
    "IBAN {iban} ({name} {surname}), tax id {tax}",
    "Wie heißen Sie? Ich heiße {name} {surname} und wohne in der {street} {number} in {city} 😀.",
    "{name} {surname} <{mail}>, {name} {surname} <{mail}>",
    "{city}, {state} {zip}",
]
PLAIN = ["", " ", "hello", "There is nothing personal in this sentence.", "日本語のテキスト、名前は田中です。", "UPPER CASE NAME: JOHN SMITH", "john smith"]


def texts(count: int) -> list[str]:
    """`count` texts, short ones first, then of up to twelve sentences."""
    draw = random.Random(7)
    found = list(PLAIN)
    while len(found) < count:
        sentences = 1 if len(found) < count * 3 // 4 else draw.randint(2, 12)
        found.append(" ".join(_sentence(draw, draw.choice(TEMPLATES)) for _ in range(sentences)))
    return found


def _sentence(draw: random.Random, template: str) -> str:
    digits = lambda count: "".join(draw.choice("0123456789") for _ in range(count))  # noqa: E731
    name, surname = draw.choice(NAMES), draw.choice(SURNAMES)
    mailname = f"{name[0].lower()}.{surname.lower().replace(chr(39), '')}{digits(2)}"
    host = draw.choice(["example.org", "mail.example.com", "intranet.example.net"])
    return template.format(
        name=name, surname=surname, mailname=mailname, host=host, mail=f"{mailname}@{host}",
        number=draw.randint(1, 2400), small=draw.randint(1, 99), zip=digits(5),
        street=draw.choice(STREETS), city=draw.choice(CITIES), state=draw.choice(STATES),
        phone=draw.choice([f"+1 555 {digits(3)} {digits(4)}", f"(555) {digits(3)}-{digits(4)}", f"0{digits(3)} {digits(6)}"]),
        passport=f"{draw.choice('CXK')}{digits(8)}", ssn=f"{digits(3)}-{digits(2)}-{digits(4)}", routing=digits(9), account=digits(10),
        licence=f"{draw.choice('DSW')}{digits(7)}", iban=f"DE{digits(20)}", tax=f"{digits(2)}-{digits(7)}",
    )  # fmt: skip
