"""Reaction SMILES for the goldens of chemical models: made-up, but of the kinds that chemists run every day."""

import random
import re

# What a bond can start from: its last atom is the one that reacts.
LEFT = [
    "CC", "CCC", "CC(C)", "C1CCCCC1", "c1ccccc1", "Cc1ccccc1", "COc1ccccc1", "Fc1ccc(C)cc1", "Clc1ccc(cc1)", "c1ccncc1",
    "c1cnccc1", "c1ccc2[nH]ccc2c1", "c1csc(C)n1", "CC(C)(C)OC(=O)NC", "N#Cc1ccc(cc1)", "FC(F)(F)c1ccc(cc1)", "C[C@H](N)",
    "C[C@@H](O)C", "c1ccc(OCc2ccccc2)cc1", "O=[N+]([O-])c1ccc(cc1)", "CN1CCN(CC1)C", "CCOC(=O)C", "c1nc2ccccc2n1C",
]
# What a bond can lead to: its first atom is the one that reacts.
RIGHT = [
    "C", "CC", "C(C)C", "CCO", "CCc1ccccc1", "Cc1ccc(OC)cc1", "c1ccccc1", "c1ccc(F)cc1", "c1ccc(Cl)c(Cl)c1", "c1cccnc1",
    "C1CCCC1", "C1CCOCC1", "C1CCN(C)CC1", "[C@@H](C)c1ccccc1", "[C@H](CO)C(C)C", "CC(F)(F)F", "CCN1CCOCC1", "c1ccc(C#N)cc1",
    "c1cc(C(F)(F)F)ccn1", "CCCCBr", "c1nc(C)cs1", "CC(=O)OC(C)(C)C", "c1ccc2ncccc2c1", "c1ccc([N+](=O)[O-])cc1",
]
SOLVENTS = ["CN(C)C=O", "ClCCl", "C1CCOC1", "CO", "CCOC(C)=O", "Cc1ccccc1", "CC#N", "O"]
KINDS = [
    "{left}C(=O)O.N{right}.CCN=C=NCCCN(C)C.On1nnc2ccccc21.{solvent}>>{left}C(=O)N{right}",
    "{left}Br.OB(O){right}.O=C([O-])[O-].[K+].[K+].[Pd].{solvent}>>{left}{right}",
    "{left}C(=O)O.O{right}.O=S(=O)(O)O>>{left}C(=O)O{right}",
    "CC(C)(C)OC(=O)N{right}.O=C(O)C(F)(F)F.{solvent}>>N{right}",
    "O=[N+]([O-]){right}.[Fe].[NH4+].[Cl-].{solvent}>>N{right}",
    "{left}CBr.O{right}.[H-].[Na+].{solvent}>>{left}CO{right}",
    "{left}C=O.N{right}.[BH4-].[Na+].CO>>{left}CN{right}",
    "{left}S(=O)(=O)Cl.N{right}.c1ccncc1.{solvent}>>{left}S(=O)(=O)N{right}",
    "{left}C(=O)OC.[OH-].[Li+].C1CCOC1.O>>{left}C(=O)O",
    "{left}C=O.Br[Mg]{right}.C1CCOC1>>{left}C(O){right}",
]
# Reactions on long chains, up to the last position of the models.
CHAINS = [30, 60, 90, 120, 150, 165]
TOKEN = re.compile(r"\[[^]]+\]|Br|Cl|>>|%\d\d|.")


def all_reactions(count: int) -> list[str]:
    """`count` different reactions, the last ones on long chains."""
    draw = random.Random(11)
    found: dict[str, None] = {}
    while len(found) < count - len(CHAINS):
        kind, left, right = draw.choice(KINDS), draw.choice(LEFT), draw.choice(RIGHT)
        found[kind.format(left=left, right=right, solvent=draw.choice(SOLVENTS))] = None
    chains = ["C" + "OCC" * length for length in CHAINS]
    return [*found, *(f"{chain}O>>{chain}Br" if len(chain) < 250 else f"{chain}>>" for chain in chains)]


def encode(reaction: str, vocabulary: dict[str, int], longest: int) -> list[int]:
    """The token ids of a reaction, an atom or a bond each, between [CLS] and [SEP]."""
    tokens = TOKEN.findall(reaction)[: longest - 2]
    return [vocabulary[token] for token in ["[CLS]", *tokens, "[SEP]"]]
