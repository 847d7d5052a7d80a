"""Two real processes that train one model: each records the gradients and updates of the whole."""

from __future__ import annotations

import datetime
import logging

import children
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

STEPS = 102


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def trained(rank, store, wrap, options):
    """One rank of the training, watched; fails where the record is not what the rank sees of the whole."""
    torch.set_num_threads(1)
    logging.getLogger("nndiag").setLevel(logging.ERROR)  # in a process of its own
    patience = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=patience)
    torch.manual_seed(0)
    model = wrap(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    norms, updates = [], []
    with nndiag.watch(model, optimizer, strict=True, **options) as recorder:
        torch.manual_seed(1 + rank)
        for _ in range(STEPS):
            x = torch.randn(12, 8)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), x[:, :3].argmax(dim=1))
            recorder.log(loss=loss)
            loss.backward()
            first = next(model.parameters())
            before = whole(first).detach().clone()
            norms.append(float(whole(first.grad).norm()))
            optimizer.step()
            updates.append(float((whole(first).detach() - before).norm()))
    name = recorder.run.gradients["norm"].columns[0]
    read = recorder.run.gradients.index
    assert recorder.run.steps == STEPS
    assert read.to_list() == (list(range(STEPS)) if "every" in options else [*range(51), 100])
    assert recorder.run.gradients["norm", name].to_list() == pytest.approx([norms[at] for at in read], rel=1e-4)
    assert recorder.run.updates["update_norm", name].to_list() == pytest.approx([updates[at] for at in read], rel=1e-4)
    dist.destroy_process_group()


def replicated(model):
    return nn.parallel.DistributedDataParallel(model)


def sharded(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=mesh)
    return model


@pytest.mark.parametrize(("wrap", "options"), [(replicated, {"every": 1}), (sharded, {"every": 1}), (sharded, {})])
def test_every_rank_records_the_whole(wrap, options, tmp_path):
    ranks = [children.start(lambda rank=rank: trained(rank, tmp_path / "store", wrap, options)) for rank in range(2)]

    assert [children.wait(rank) for rank in ranks] == [0, 0]
