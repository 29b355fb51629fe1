#!/usr/bin/env python3
"""Input: `customer,ID,NAME` and `order,ID,AMOUNT` lines mixed. Prints them by customer ID."""
import sys

for line in sys.stdin:
    kind, _, rest = line.rstrip("\n").partition(",")
    key, _, value = rest.partition(",")
    if kind in ("customer", "order"):
        print(key, f"{kind},{value}", sep="\t")
    else:
        print("reporter:counter:join,unknown lines,1", file=sys.stderr)
