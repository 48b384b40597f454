"""Several processes that train one model: which of them this one is, and how they share work, sums and decisions.

They are started by torchrun, or as tasks of srun. A process by itself is rank 0 of 1, and nothing here changes what it
does. The losses of the parts of a batch add up to those of the whole, so everything that processes make of their parts
is added up too, gradients included; nothing is averaged.
"""

import os
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from snp.errors import InputError

S = TypeVar("S")
T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: one makes or reads data while the others wait."""
_apart: Any = None
"""The group of `across`: its sums are made during backward passes, among those of DistributedDataParallel."""


# -- who is there ------------------------------------------------------------------------------------------------


def rank() -> int:
    """The number of this process among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share() -> tuple[int, int]:
    """Which part of a batch is this process's, and of how many."""
    return rank(), size()


@contextmanager
def together() -> Iterator[None]:
    """Within, the processes that were started together know each other; for one alone nothing changes.

    With GPUs each process takes the one of its local rank as `cuda`. An error ends the processes one by one: whoever
    started them ends the others.
    """
    if dist.is_initialized() or _environment() is None:
        yield
        return
    start()
    yield
    end()  # not after an error: the others may never come to it


def start() -> None:
    """Meet the processes that the environment tells of.

    Raises:
        InputError: it tells of several, but not how they meet.
    """
    global _apart
    local = _environment()
    if local is None:
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local % torch.cuda.device_count())  # a task of srun may see its own GPU alone
    # gradients of maps from or to one number have another layout than their weights, which costs nothing there
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    dist.init_process_group(backend, timeout=PATIENCE)
    _apart = dist.new_group()


def end() -> None:
    """Part from the other processes."""
    global _apart
    if dist.is_initialized():
        dist.destroy_process_group()
    _apart = None


def _environment() -> int | None:
    """This process's number on its machine, with all that torch needs in the environment; None for one alone."""
    if _number("WORLD_SIZE", 1) > 1:
        for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise InputError("WORLD_SIZE", f"is {os.environ['WORLD_SIZE']}, and {name} is not set", "use torchrun")
        for name in ("RANK", "MASTER_PORT"):
            _number(name, 0)
        return _number("LOCAL_RANK", 0)
    # of the step, which srun alone makes: a job's own script, which runs once, sees SLURM_NTASKS too
    tasks = _number("SLURM_STEP_NUM_TASKS", 1)
    if tasks < 2:
        return None
    from submitit.slurm.slurm import SlurmJobEnvironment

    step = f"{os.environ.get('SLURM_JOB_ID')}.{os.environ.get('SLURM_STEP_ID')}"
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or SlurmJobEnvironment().hostnames[0],
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(random.Random(step).randint(20000, 60000)),
    }
    return _number("LOCAL_RANK", 0)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(name, f"must be a number, got {text!r}", "unset it, or start the processes with torchrun")
    return int(text)


# -- what they agree on ------------------------------------------------------------------------------------------


def barrier() -> None:
    """Wait until all are here: what rank 0 has written before, all can read."""
    once(lambda: None)


def once(make: Callable[[], T]) -> T:
    """Done by rank 0 alone; what comes of it, be it an error, in all processes."""
    if size() == 1:
        return make()
    found: list[Any] = [None, None]
    if rank() == 0:
        try:
            found[0] = make()
        except Exception as error:
            found[1] = error
    dist.broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]  # type: ignore[no-any-return]


@contextmanager
def leading(context: AbstractContextManager[None]) -> Iterator[None]:
    """`context` around rank 0 alone; no process begins before it is entered, and none where it cannot be."""
    with ExitStack() as stack:
        once(lambda: stack.enter_context(context))
        yield


@contextmanager
def in_turn() -> Iterator[None]:
    """Rank 0 first, then all others: what it makes and leaves on the disk, they find. Not to be nested."""
    if rank() > 0:
        barrier()
    try:
        yield
    finally:
        if rank() == 0:
            barrier()  # also after an error, which the others then meet themselves


def any(flag: bool) -> bool:
    """Whether the flag is up in any process."""
    if size() == 1:
        return flag
    raised = torch.tensor(int(flag))
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return bool(raised)


# -- what they add up, and put together --------------------------------------------------------------------------


def total(values: dict[str, float]) -> dict[str, float]:
    """Numbers of the same names, added up over all processes."""
    if size() == 1:
        return values
    sums = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def stacked(tensor: Tensor) -> Tensor:
    """The tensors [...] of all processes, on the CPU, [processes, ...]."""
    if size() == 1:
        return tensor[None]
    found = [torch.empty_like(tensor) for _ in range(size())]
    dist.all_gather(found, tensor)
    return torch.stack(found)


def spread(
    items: Iterable[S], work: Callable[[Any], T], ready: Callable[[Iterable[S]], Iterable[Any]] = iter
) -> list[T]:
    """work(item) of every item, in order and in every process; each is done by one of them, in turn.

    An error of one is raised in all of them.

    Args:
        ready: what `work` is given for the items that are this process's own, in their order.
    """
    if size() == 1:
        return [work(item) for item in ready(items)]
    done: list[T] = []
    failed: Exception | None = None
    try:
        done += (work(item) for item in ready(islice(items, rank(), None, size())))
    except Exception as error:
        failed = error
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, (done, failed))
    for _, failure in found:
        if failure is not None:
            raise failure
    own = [part for part, _ in found]
    return [own[i % size()][i // size()] for i in range(sum(map(len, own)))]


# -- gradients ---------------------------------------------------------------------------------------------------


def parallel(module: nn.Module) -> nn.Module:
    """The module, after whose backward pass every process has the sum of all gradients; rank 0's weights in all."""
    if size() == 1:
        return module
    wrapped = DistributedDataParallel(module, forward_sync_buffers=False, find_unused_parameters=True)
    wrapped.register_comm_hook(None, _sum)
    return wrapped


def apart(module: nn.Module) -> AbstractContextManager[None]:
    """Within, gradients of a `parallel` module are kept, and summed in the next backward pass outside."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def across(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, equal in all processes, each of which uses them for a part of the work.

    Their gradients are the sums over all processes. The backward passes must be as many everywhere.
    """
    return tensors if size() == 1 else _Across.apply(*tensors)


def added(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """The sums of tensors, of the shapes of `like`, over all processes; None where no process has one."""
    return list(tensors) if size() == 1 else _added(tensors, like)


def part(batch: Any) -> Any:
    """What this process does of a batch that all have: a whole one for one alone."""
    return batch if size() == 1 else batch.part(*share())


def _sum(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    # in place of DistributedDataParallel's mean
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda done: done.value()[0])


class _Across(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(_added(gradients, ctx.saved_tensors))


def _added(tensors: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """One sum for all, so that processes meet once even where some of them lack a tensor or keep it elsewhere."""
    used = like[0].new_tensor([tensor is not None for tensor in tensors])
    given = [torch.zeros_like(t) if own is None else own for t, own in zip(like, tensors, strict=True)]
    flat = torch.cat([used, *(tensor.flatten().to(used.device) for tensor in given)])
    dist.all_reduce(flat, group=_apart)
    used, *pieces = flat.split([len(like), *(tensor.numel() for tensor in like)])
    return [
        piece.view_as(tensor).to(tensor) if known else None
        for tensor, piece, known in zip(like, pieces, used.tolist(), strict=True)
    ]
