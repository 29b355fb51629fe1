"""Counts the words of files with Dask's bag, on two processes; prints `word TAB count`, sorted."""
import re
import sys

import dask
import dask.bag

WORD = re.compile(r"[^\W_]+")

if __name__ == "__main__":
    with dask.config.set(scheduler="processes", num_workers=2):
        lines = dask.bag.read_text(sys.argv[1:], encoding="utf-8", errors="replace")
        words = lines.str.lower().map(WORD.findall).flatten()
        for word, count in sorted(words.frequencies().compute()):
            print(word, count, sep="\t")
