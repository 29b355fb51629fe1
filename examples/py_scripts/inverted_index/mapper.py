#!/usr/bin/env python3
"""Input: `document TAB text` a line. Prints `word TAB document` once per word of a line."""
import re
import sys

WORD = re.compile(r"\w+")

for line in sys.stdin:
    document, _, text = line.rstrip("\n").partition("\t")
    for word in sorted(set(WORD.findall(text.lower()))):
        print(word, document, sep="\t")
