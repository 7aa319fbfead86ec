"""What pip finds in setuptools' place while it packs BasicSR's release."""
