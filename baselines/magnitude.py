"""Magnitude pruning, unstructured: the smallest |w| fall, of all weights, of every modality, or of every matrix."""

from baselines.masking import ModeOptions, Scored, Scores, weights
from snp.compression.problem import Problem
from snp.compression.registry import register


class _Magnitude(Scored):
    """What differs between the modes is said in `ModeOptions`; both see the same scores."""

    stage = "one-shot"
    Options = ModeOptions

    def score(self, problem: Problem) -> Scores:
        return {name: weight.abs() for name, weight in weights(problem).items()}


@register
class OMP(_Magnitude):
    """Score |w|, one threshold for everything."""

    name = "omp"
    source = "one-shot magnitude pruning, as compared with in MULTIFLOW (CVPR 2024)"
    summary = "zero the smallest weights, one global threshold"


@register
class ModalityMP(_Magnitude):
    """Score |w|, a threshold for each modality: the same share of every one is zeroed."""

    name = "modalitymp"
    source = "magnitude pruning per modality, as compared with in MULTIFLOW (CVPR 2024)"
    summary = "zero the smallest weights, one threshold per modality"
    scope = "group"


@register
class LocalMP(_Magnitude):
    """Score |w|, a threshold for each weight matrix: the same share of every one is zeroed."""

    name = "localmp"
    source = "magnitude pruning per layer, as compared with in MULTIFLOW (CVPR 2024)"
    summary = "zero the smallest weights, one threshold per matrix"
    scope = "layer"


@register
class L2(Scored):
    """Score |w| / ||W||_2, one threshold for everything: a weight counts by its part of its matrix's norm."""

    name = "l2"
    stage = "one-shot"
    source = "L2-normalised magnitude, as compared with in MULTIFLOW (CVPR 2024)"
    summary = "zero the weights that are smallest beside their matrix's norm"

    def score(self, problem: Problem) -> Scores:
        return {name: w.abs() / w.norm().clamp(min=1e-30) for name, w in weights(problem).items()}


@register
class LAMP(Scored):
    """Score w_u^2 / sum of all w_v^2 of the matrix with w_v^2 >= w_u^2, one threshold for everything.

    Of equal weights, the one that comes later has the smaller sum. The sums are made in float64, as with float32 the
    smallest weights of a large matrix add nothing any more.
    """

    name = "lamp"
    stage = "one-shot"
    source = "Layer-adaptive sparsity for magnitude-based pruning (Lee et al., ICLR 2021)"
    summary = "zero the weights of the smallest layer-adaptive magnitude"

    def score(self, problem: Problem) -> Scores:
        found = {}
        for name, weight in weights(problem).items():
            square = weight.flatten().double().square()
            ascending, order = square.sort(stable=True)
            sums = ascending.flip(0).cumsum(0).flip(0)
            found[name] = square.scatter(0, order, ascending / sums.clamp(min=1e-300)).view(weight.shape)
        return found
