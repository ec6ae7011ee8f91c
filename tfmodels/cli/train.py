"""`tfmodels train`: a run from a YAML file of a config's fields."""

import dataclasses
import math
import os
from typing import Literal


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        output: the run folder: config, versions, tokenizer, checkpoints, best model, logs. The same command
            goes on with a run that was killed there.
        task: translation trains an encoder-decoder on pairs, generation a GPT-2 on running text.
        train: a file, TSV of source and target or text with one paragraph a line, or the name of a
            packaged corpus: mt_enes_bible, lm_novels.
        valid: the same for validation; left out, a packaged corpus has its own and a file none.
        size: size of the model: tiny, base, big; or tiny, small, medium, large, xl.
        model: fields of TransformerConfig or GPT2Config that override the size's.
        vocabulary_size: pieces of the vocabulary that is learnt from the training text.
        tokenizer: an existing SentencePiece model file instead.
        max_length: tokens of an example: longer pairs are left out, text is cut into rows.
        tokens_per_batch: positions in a batch, padding included.
        epochs: passes over the training text, at the most.
        patience: epochs without a better validation loss after which training stops.
        optimizer: adamw, or muon for the kernels (AdamW for the rest).
        learning_rate: the highest rate.
        schedule: after linear warm-up, decay by inverse_square_root, cosine, linear, or
            warmup_stable_decay, which stays at the highest rate up to decay_steps before the end.
        warmup_steps: steps of linear warm-up.
        decay_steps: steps of the decay of warmup_stable_decay; left out, a fifth of all.
        average_decay: validate and save an exponential moving average of the weights, such as 0.999.
        checkpoint_steps: steps from one checkpoint to the next, from which a killed run goes on.
        keep_checkpoints: how many of them to keep.
        weight_decay: decoupled weight decay.
        precision: mixed_bfloat16, mixed_float16 or float32.
        micro_batches: parts that a batch is cut into to save memory; the result is the same.
        strategy: auto takes the workers that TF_CONFIG or workers name, else all GPUs where there are
            several; none; mirrored; multi_worker.
        workers: host:port of each worker. Start the same command on each, with an output that all see.
        worker_index: which of them this process is, from 0; left out, the one that is named as this host.
        seed: of weights, dropout and shuffling.
    """

    output: str = "runs/train"
    task: Literal["translation", "generation"] = "translation"
    train: str = "mt_enes_bible"
    valid: str | None = None
    size: str = "tiny"
    model: dict = dataclasses.field(default_factory=dict)
    vocabulary_size: int = 4000
    tokenizer: str | None = None
    max_length: int = 64
    tokens_per_batch: int = 4096
    epochs: int = 10
    patience: int = 3
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    schedule: Literal["inverse_square_root", "cosine", "linear", "warmup_stable_decay"] = "cosine"
    warmup_steps: int = 100
    decay_steps: int | None = None
    average_decay: float | None = None
    checkpoint_steps: int = 500
    keep_checkpoints: int = 2
    weight_decay: float = 0.01
    precision: Literal["mixed_bfloat16", "mixed_float16", "float32"] = "mixed_bfloat16"
    micro_batches: int = 1
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = "auto"
    workers: list[str] | None = None
    worker_index: int | None = None
    seed: int = 0

    def __post_init__(self):
        whole = ("vocabulary_size", "max_length", "tokens_per_batch", "epochs", "warmup_steps", "decay_steps")
        for name in (*whole, "micro_batches", "checkpoint_steps", "keep_checkpoints"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Received: {getattr(self, name)}.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0 and finite. Received: {self.learning_rate}.")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be at least 0 and finite. Received: {self.weight_decay}.")
        if self.patience < 0:
            raise ValueError(f"patience must be at least 0. Received: {self.patience}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be at least 0 and below 2**32. Received: {self.seed}.")
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must be at least 0 and below 1. Received: {self.average_decay}.")
        if self.max_length > self.tokens_per_batch:
            raise ValueError(
                "tokens_per_batch must be at least max_length. Received: "
                f"tokens_per_batch={self.tokens_per_batch}, max_length={self.max_length}."
            )


def train(config):
    """Trains a model and leaves a run folder. All input is checked before training starts.

    Args:
        config: a `TrainConfig`.

    Returns:
        str, the run folder.
    """
    import keras

    from tfmodels.cli.run import check_writable, needed_bytes
    from tfmodels.cli.run_folder import check_same_config, start_run
    from tfmodels.training import make_strategy

    if config.workers is not None:
        from tfmodels.cli.workers import set_workers

        set_workers(config.workers, config.worker_index, config.strategy)
    strategy = make_strategy(config.strategy)
    check_writable(config.output)
    check_same_config(config.output, dataclasses.asdict(config))
    train_texts = _read(config.task, config.train, "train")
    valid_source = config.valid or (config.train if _is_packaged(config.train) else None)
    valid_texts = None if valid_source is None else _read(config.task, valid_source, "valid")

    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    _check_model_fields(config)
    tokenizer = _tokenizer(config, train_texts)
    with strategy.scope():
        model = _model(config, tokenizer)
    check_writable(config.output, needed_bytes(model, config.keep_checkpoints))

    examples = _examples(config, train_texts, tokenizer)
    _check_first_batch(config, examples, strategy.num_replicas_in_sync)
    reader = _reader(config, examples, shuffle=True, repeat=True)
    steps = reader.num_batches()
    with strategy.scope():
        model.compile(_optimizer(config, steps * config.epochs), micro_batches=config.micro_batches)
    monitor, valid_data = "loss", None
    if valid_texts is not None:
        monitor = "val_loss"
        examples = _examples(config, valid_texts, tokenizer)
        if not len(examples):
            raise ValueError(
                f"No validation example is within max_length={config.max_length} tokens. Raise max_length."
            )
        valid_data = _reader(config, examples, shuffle=False, repeat=False).dataset()

    os.makedirs(config.output, exist_ok=True)
    if strategy.extended.should_checkpoint:  # of several workers the first
        start_run(config.output, dataclasses.asdict(config), tokenizer)
        print(f"{model.count_params():,} parameters, {steps} steps an epoch")
    model.fit(
        reader.dataset(),
        steps_per_epoch=steps,
        epochs=config.epochs,
        validation_data=valid_data,
        shuffle=False,
        callbacks=_callbacks(config, monitor),
    )
    return config.output


def _callbacks(config, monitor):
    import keras

    from tfmodels.cli.run_folder import SaveBest
    from tfmodels.training import AverageWeights, Resume, TensorBoard

    def path(name):
        return os.path.join(config.output, name)

    average = None if config.average_decay is None else AverageWeights(config.average_decay)
    return [
        *([average] if average else []),
        SaveBest(path("model.keras"), monitor, average),
        keras.callbacks.EarlyStopping(monitor, patience=config.patience),
        keras.callbacks.CSVLogger(path("epochs.csv"), append=True),
        TensorBoard(path("logs"), update_freq=20),
        Resume(path("checkpoints"), config.checkpoint_steps, config.keep_checkpoints),
    ]


def _is_packaged(name):
    return name in ("mt_enes_bible", "lm_novels")


def _read(task, source, split):
    """Pairs or texts from a file or a packaged corpus; errors name file and line."""
    from tfmodels import data, datasets

    packaged = {"translation": "mt_enes_bible", "generation": "lm_novels"}[task]
    if _is_packaged(source):
        if source != packaged:
            raise ValueError(f"task {task} needs {packaged} or a file. Received: {source!r}.")
        return datasets.load(source, split)
    if not os.path.isfile(source):
        raise FileNotFoundError(f"no such file or packaged corpus: {source!r}")
    return data.read_pairs(source) if task == "translation" else data.read_texts(source)


def _check_model_fields(config):
    """Fails on an unknown size or field before a vocabulary is learnt."""
    from tfmodels.models import GPT2Config, TransformerConfig
    from tfmodels.models.base import make_config
    from tfmodels.models.gpt2 import SIZES as GPT2_SIZES
    from tfmodels.models.transformer import SIZES as TRANSFORMER_SIZES

    reserved = {"vocabulary_size", "source_vocabulary_size", "target_vocabulary_size"}
    for name in reserved & set(config.model):
        raise ValueError(f"model.{name} comes from the tokenizer: set vocabulary_size instead.")
    if config.task == "translation":
        fields = make_config(TransformerConfig, TRANSFORMER_SIZES, config.size, config.model)
    else:
        fields = make_config(GPT2Config, GPT2_SIZES, config.size, config.model)
    if config.max_length > fields.max_sequence_length:
        raise ValueError(
            "max_length must not be above the model's max_sequence_length. Received: "
            f"max_length={config.max_length}, max_sequence_length={fields.max_sequence_length}."
        )


def _tokenizer(config, texts):
    from tfmodels.tokenizers import SentencePieceTokenizer

    if config.tokenizer is not None:
        return SentencePieceTokenizer.load(config.tokenizer)
    if config.task == "translation":
        texts = [side for pair in texts for side in pair]
        return SentencePieceTokenizer.train(texts, config.vocabulary_size)
    return SentencePieceTokenizer.train(texts, config.vocabulary_size, normalization="identity")


def _model(config, tokenizer):
    from tfmodels import models

    build = models.transformer if config.task == "translation" else models.gpt2
    return build(config.size, vocabulary_size=tokenizer.vocabulary_size, **config.model)


def _examples(config, texts, tokenizer):
    from tfmodels import data

    if config.task == "translation":
        return data.sequence_to_sequence(texts, tokenizer, max_length=config.max_length)
    return data.causal_language_modelling(texts, tokenizer, config.max_length)


def _reader(config, examples, shuffle, repeat):
    from tfmodels import data

    if config.task == "translation":
        size = {"tokens_per_batch": config.tokens_per_batch}
    else:
        size = {"batch_size": config.tokens_per_batch // config.max_length}
    return data.Reader(examples, shuffle=shuffle, seed=config.seed, repeat=repeat, **size)


def _check_first_batch(config, examples, replicas):
    """What the first step would find, before the run folder is written."""
    from tfmodels.training.update import check_row_count

    for _, y, _ in _reader(config, examples, shuffle=True, repeat=True).dataset().take(1):
        check_row_count(len(y), replicas * config.micro_batches)


def _optimizer(config, total_steps):
    import keras

    from tfmodels.training import InverseSquareRoot, WarmupStableDecay, warmup_cosine, warmup_linear

    # A run of few steps warms up for half of them, and has one step at least to decay.
    warmup_steps = min(config.warmup_steps, max(1, total_steps // 2))
    total_steps = max(total_steps, warmup_steps + 1)
    if config.schedule == "cosine":
        rate = warmup_cosine(config.learning_rate, total_steps, warmup_steps)
    elif config.schedule == "linear":
        rate = warmup_linear(config.learning_rate, total_steps, warmup_steps)
    elif config.schedule == "warmup_stable_decay":
        decay_steps = config.decay_steps or max(1, total_steps // 5)
        rate = WarmupStableDecay(config.learning_rate, total_steps, warmup_steps, decay_steps)
    else:
        rate = InverseSquareRoot(config.learning_rate, warmup_steps)
    if config.optimizer == "muon":
        return keras.optimizers.Muon(rate, adam_lr_ratio=0.1, weight_decay=config.weight_decay)
    return keras.optimizers.AdamW(rate, beta_2=0.98, weight_decay=config.weight_decay)
