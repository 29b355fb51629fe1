"""The same scripts, as commands of a job of mrjob."""
import os

from mrjob.job import MRJob


class WordCount(MRJob):
    def mapper_cmd(self):
        return os.environ["MAPPER"]

    def reducer_cmd(self):
        return os.environ["REDUCER"]


if __name__ == "__main__":
    WordCount.run()
