"""Where the command line begins."""

import gc

from ablate import interrupts


def main() -> None:
    """Run the command line; Ctrl-C is seen to before anything else is imported."""
    interrupts.prepare()
    try:
        from ablate import cli

        cli.main()
    finally:
        interrupts.conclude()
        gc.freeze()  # all is about to end: Python would look through everything that was imported for garbage


if __name__ == "__main__":
    main()
