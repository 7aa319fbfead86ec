"""Upscale photographs: python inference.py -i photo.jpg -o out/."""

import mrda_utils.openmp  # noqa: F401  (before torch)

from mrda_inference.command_line import main

if __name__ == "__main__":
    main()
