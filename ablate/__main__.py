"""Where the command line begins."""

from ablate import interrupts


def main() -> None:
    """Run the command line; Ctrl-C is seen to before anything else is imported."""
    interrupts.prepare()
    try:
        from ablate import cli

        cli.main()
    finally:
        interrupts.conclude()


if __name__ == "__main__":
    main()
