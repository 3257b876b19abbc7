"""``python -m cipherlearn``."""

from cipherlearn.cli import main

if __name__ == "__main__":
    main()
