"""`python -m ablate`, for where the script is not on the path."""

from ablate.cli import main

if __name__ == "__main__":
    main()
