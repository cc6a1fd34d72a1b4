"""Checks a script at its first fit, and prints what is found: a program of the tests."""

import sys

from deepepochs.cli.first_fit import at_first_fit

if __name__ == "__main__":
    script, *arguments = sys.argv[1:]
    found = at_first_fit(script, arguments, lambda trainer, options, _: trainer.check(**options))
    print(f"found: {found}")
