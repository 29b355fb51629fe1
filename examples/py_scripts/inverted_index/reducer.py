#!/usr/bin/env python3
"""Prints each word with the sorted list of documents that have it."""
import sys
from itertools import groupby

lines = (line.rstrip("\n").partition("\t") for line in sys.stdin)
for word, group in groupby(lines, key=lambda line: line[0]):
    documents = sorted({document for _, _, document in group})
    print(word, ",".join(documents), sep="\t")
