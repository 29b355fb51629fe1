#!/usr/bin/env python3
"""Joins each customer's name with each of their orders' amounts."""
import sys
from itertools import groupby

lines = (line.rstrip("\n").partition("\t") for line in sys.stdin)
for key, group in groupby(lines, key=lambda line: line[0]):
    names, amounts = [], []
    for _, _, value in group:
        kind, _, rest = value.partition(",")
        (names if kind == "customer" else amounts).append(rest)
    # The order of values inside a key is not specified: sort what is to be stable.
    for name in sorted(names):
        for amount in sorted(amounts):
            print(key, name, amount, sep="\t")
