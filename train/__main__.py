"""`python -m mtv.train` is `mtv-train`; torchrun starts it this way."""

from mtv.train.cli import main

if __name__ == "__main__":
    main()
