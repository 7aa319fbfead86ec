"""Upscale photographs: python inference.py -i photo.jpg -o out/."""

from mrda_inference.command_line import main

if __name__ == "__main__":
    main()
