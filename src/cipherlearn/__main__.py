"""``python -m cipherlearn``."""

from cipherlearn._cli import main

if __name__ == "__main__":
    main()
