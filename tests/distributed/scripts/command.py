"""The command ``deepepochs``, as a file that a launcher starts."""

from deepepochs.cli.main import main

if __name__ == "__main__":
    main()
