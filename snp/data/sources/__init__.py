"""Readers of the formats in which benchmarks are published; all end in `snp.data.annotations.Entry`."""
