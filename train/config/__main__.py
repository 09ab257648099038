"""Print the configuration that arguments make: ``python -m train.config fold=4``."""

import sys

from train.config.help import check_or_exit
from train.config.load import load
from train.config.text import text

if __name__ == "__main__":
    check_or_exit(sys.argv[1:])
    print(text(load(sys.argv[1:])), end="")
