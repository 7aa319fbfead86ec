"""python -m mrda_inference.web, where nothing is installed."""

from mrda_inference.web import main

if __name__ == "__main__":
    main()
