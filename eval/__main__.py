"""`python -m mtv.eval` is `mtv-eval`."""

from mtv.eval.cli import main

if __name__ == "__main__":
    main()
