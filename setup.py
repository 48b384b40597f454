"""Builds happen in a folder of their own: nothing is left in a checkout, and no deleted module in the next wheel."""

from tempfile import TemporaryDirectory

from setuptools import setup

with TemporaryDirectory() as folder:
    setup(options={"build": {"build_base": folder}, "egg_info": {"egg_base": folder}})
