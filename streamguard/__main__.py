"""`python -m streamguard`."""

from streamguard.cli.main import main

if __name__ == "__main__":
    main()
