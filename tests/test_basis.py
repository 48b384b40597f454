"""Bases of units: the function stays, and what a layer can do lies in its first units."""

import pytest
import torch

from snp.compression.basis import turn
from snp.compression.block import UNIT_DIMS
from snp.compression.tower import iterate, towers_of
from tests import nets
