"""python -m mrda_inference.web, where nothing is installed."""

from mrda_inference.web import main

main()
