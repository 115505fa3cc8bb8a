"""Memory of GPUs and hosts, and disk, item by item. All of it is an estimate but for weights, KV
cache, gradients and optimizer states, which are counted.

Nothing here was compared with a GPU: none was at hand. What libraries take is a guess on the safe
side (the constants below).
"""

from dataclasses import dataclass

from haloforge.config import Settings
from haloforge.placement import Placement
from haloforge.plan.nodes import Seats
from haloforge.plan.shape import Shape
from haloforge.rollout.vllm_engine import CPU_KV_CACHE_GB, lora_capacity
from haloforge.train.estimate import trainer_memory

GB = 2**30
Items = dict[str, float]

_CUDA_ENGINE = 2.0 * GB  # context, workspaces of kernels, NCCL, captured graphs
_CUDA_ASLEEP = 2.0 * GB  # what of these a sleeping engine keeps
_CUDA_TRAINER = 2.0 * GB  # context, workspaces, NCCL, what the allocator cannot use
VLLM_SHARE = 0.92  # vLLM's default share of a GPU
# Tokens of one step of vLLM's offline class, by its defaults: more on GPUs of 70 GB (but an A100).
_STEP_TOKENS, _STEP_TOKENS_LARGE, _LARGE_GB = 8192, 16384, 70
# DeepSpeed's defaults: the bucket that gradients are reduced in, in fp32 here, and the parameters
# that ZeRO 3 keeps whole at a time.
_BUCKET = 500_000_000 * 4
_LIVE_PARAMETERS = 1_000_000_000 * 2
PROCESS_GB = 3.0  # an actor with torch, vLLM or DeepSpeed in it
_ROW_BYTES, _TOKEN_BYTES = 500, 4  # a sample's rows in Parquet, about


def weight_bytes(settings: Settings) -> int:
    """Bytes of a weight in an engine."""
    return 4 if settings.rollout.dtype == "float32" else 2


def kv_bytes_per_token(shape: Shape, settings: Settings) -> float:
    """Bytes of the KV cache on each GPU of an engine for one token: keys and values of each layer
    and KV head, those that are fewer than the GPUs on several."""
    heads = max(1, shape.kv_heads / settings.rollout.tensor_parallel)
    return 2 * shape.size.layers * heads * shape.head_dim * weight_bytes(settings)


def engine_gpu(shape: Shape, settings: Settings, gpu_memory_gb: float) -> Items:
    """Bytes on each GPU of an engine, by what for. The KV cache is what `rollout.kv_cache_gb` says,
    else what vLLM would take, which may be less than nothing."""
    rollout = settings.rollout
    width, parts = weight_bytes(settings), rollout.tensor_parallel
    tokens = _STEP_TOKENS_LARGE if gpu_memory_gb >= _LARGE_GB else _STEP_TOKENS
    size = shape.size
    items: Items = {"weights": shape.parameters * width / parts}
    if rollout.policy_swap == "lora":
        rank = max(settings.train.lora.rank, 1)
        items["adapter"] = shape.added * width * lora_capacity(rank) / rank
    items["activations"] = tokens * width * (4 * size.hidden + 3 * size.intermediate / parts)
    items["logits"] = rollout.max_num_seqs * size.vocabulary * (width + 8)
    items["CUDA and vLLM"] = _CUDA_ENGINE
    left = gpu_memory_gb * VLLM_SHARE * GB - sum(items.values())
    return {**items, "KV cache": rollout.kv_cache_gb * GB if rollout.kv_cache_gb else left}


def trainer_gpu(shape: Shape, settings: Settings, placement: Placement) -> tuple[Items, Items]:
    """Bytes of a trainer on its GPU and in the host's memory, by what for.

    Of the largest micro-batch that may be: all of it answers. A sequence may be twice as long as
    the longest row (`StepPlan.micro_batches`).
    """
    train = settings.train.on(gpu=placement.gpus_per_trainer > 0)
    assert train.micro_batch_tokens is not None
    longest = 2 * train.max_length
    tokens = max(train.micro_batch_tokens, longest)
    if train.micro_batch_size:
        tokens = train.micro_batch_size * longest
    gpu = trainer_memory(shape.size, train, placement.trainers, tokens, tokens)
    host: Items = {}
    if train.cpu_offload:
        moved = ["optimizer"]
        if train.zero_stage == 3:
            moved += ["frozen weights", "trained weights"]
        host = {name: gpu.pop(name) for name in moved}
    if train.zero_stage:
        gpu["DeepSpeed's buffers"] = min(_BUCKET, 4.0 * shape.size.trained)
    if train.zero_stage == 3:
        gpu["DeepSpeed's buffers"] += min(_LIVE_PARAMETERS, 2.0 * shape.size.parameters)
    if placement.engines_sleep:
        gpu["sleeping engine"] = _CUDA_ASLEEP
    if placement.gpus_per_trainer:
        gpu["CUDA and allocator"] = _CUDA_TRAINER
    return gpu, host


@dataclass(frozen=True)
class Host:
    """What a node's memory holds at most in each phase, by what for; the phases take turns."""

    phases: dict[str, Items]

    @property
    def most(self) -> tuple[str, float]:
        """The phase that takes most, and its bytes."""
        sums = {name: sum(items.values()) for name, items in self.phases.items()}
        name = max(sums, key=sums.__getitem__)
        return name, sums[name]


def host(
    seats: Seats,
    shape: Shape,
    settings: Settings,
    placement: Placement,
    trainer: Items,
    process_gb: float = PROCESS_GB,
) -> Host:
    """The host's memory of a node with these seats; `trainer` is what each trainer keeps there,
    `process_gb` what each of their processes takes beside that.

    An engine merges in fp32 (`Policy.merge_into`); asleep it keeps its weights here. A trainer
    reads the base here before it goes onto its GPU, under ZeRO 3 only the first trainer.
    """
    size = shape.parameters
    on_gpu = placement.gpus_per_engine > 0
    engines, trainers = seats.engines, seats.trainers
    weights = size * weight_bytes(settings)
    always: Items = {"processes": (engines + trainers) * process_gb * GB}
    if placement.engines_sleep:
        always["weights of engines, asleep or just woken"] = engines * weights
    if not on_gpu:
        always["engines' weights"] = engines * weights
        always["KV cache"] = engines * (settings.rollout.kv_cache_gb or CPU_KV_CACHE_GB) * GB
    merges = settings.train.use_lora and settings.rollout.policy_swap != "lora"
    swap = {**always, "merging in fp32": engines * size * 4.0} if merges else dict(always)
    sandbox = max(settings.verify.compile_memory_mb, settings.verify.run_memory_mb) * 2**20
    sample = {**always, "sandboxes, at their limit": float(seats.verifiers * sandbox)}
    train = dict(always)
    if trainers and on_gpu:
        readers = 0 if settings.train.load_in_4bit else trainers
        readers = min(1, readers) if settings.train.zero_stage == 3 else readers
        train["trainers read the base"] = readers * size * 2.0
    for name, taken in trainer.items():
        train[name] = trainers * taken
    return Host({"sample": sample, "swap the policy": swap, "train": train})


def disk(seats: Seats, shape: Shape, settings: Settings, samples: int, tokens: float) -> Items:
    """Bytes on the disk of a node with these seats, and on the run's own, of which this counts as
    if they were one: `samples` a cycle, of `tokens` tokens each."""
    size, trained = shape.parameters, shape.size.trained
    train = settings.train
    items: Items = {"base": size * 2.0}
    if train.use_lora and settings.rollout.policy_swap != "lora":
        items["merged copies, for a while"] = seats.engines * size * 2.0
    # Master weights and two moments in fp32; the newest, the best, and the one being written.
    items["checkpoints"] = (train.save_total_limit + 2) * trained * 12.0
    items["policies of all cycles"] = (settings.raft.cycles + 1) * trained * 2.0
    items["samples of all cycles"] = (
        settings.raft.cycles * samples * (_ROW_BYTES + _TOKEN_BYTES * tokens)
    )
    return items
