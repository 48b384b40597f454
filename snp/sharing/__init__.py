"""The paper's method: learning to jointly share and prune weights of two transformer towers."""
