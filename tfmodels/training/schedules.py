"""Learning-rate schedules with warm-up in steps."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfmodels")
class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then decay with the inverse square root of the step (Vaswani et al. 2017,
    section 5.3).

    Args:
        learning_rate: float, the highest rate, at the end of the warm-up. The paper's is
            `(hidden_dim * warmup_steps) ** -0.5`.
        warmup_steps: int, at least 1.

    Call arguments:
        step: int tensor, a scalar.

    Returns:
        Float tensor, a scalar.
    """

    def __init__(self, learning_rate, warmup_steps=4000):
        _check_warmup(warmup_steps)
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        step = ops.cast(step, "float32") + 1.0  # the first step has a rate above 0
        warmup = step / self.warmup_steps
        return self.learning_rate * ops.minimum(warmup, ops.rsqrt(warmup))

    def get_config(self):
        return {"learning_rate": self.learning_rate, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable("tfmodels")
class WarmupStableDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, a constant rate, then linear decay to 0 (Hu et al. 2024, MiniCPM, section 4; the
    linear form is that of Haegele et al. 2024, section 3).

    A run may be prolonged from a checkpoint before the decay: the rates up to there are the same.

    Args:
        learning_rate: float, the highest rate.
        total_steps: int, from the first step to rate 0.
        warmup_steps: int, at least 1.
        decay_steps: int, at least 1, steps of the decay.

    Call arguments:
        step: int tensor, a scalar.

    Returns:
        Float tensor, a scalar.
    """

    def __init__(self, learning_rate, total_steps, warmup_steps, decay_steps):
        _check_warmup(warmup_steps)
        if decay_steps < 1 or warmup_steps + decay_steps > total_steps:
            raise ValueError(
                "decay_steps must be at least 1 and fit into total_steps after warmup_steps. Received: "
                f"total_steps={total_steps}, warmup_steps={warmup_steps}, decay_steps={decay_steps}."
            )
        self.learning_rate = learning_rate
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        warmup = (step + 1.0) / self.warmup_steps  # the first step has a rate above 0
        decay = (self.total_steps - step) / self.decay_steps
        return self.learning_rate * ops.clip(ops.minimum(warmup, decay), 0.0, 1.0)

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
        }


def warmup_linear(learning_rate, total_steps, warmup_steps):
    """Linear warm-up, then linear decay to 0 (Devlin et al. 2019, section A.2).

    Args:
        learning_rate: float, the highest rate, at the end of the warm-up.
        total_steps: int, warm-up included.
        warmup_steps: int, at least 1.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`.
    """
    _check_total(total_steps, warmup_steps)
    return WarmupStableDecay(learning_rate, total_steps, warmup_steps, total_steps - warmup_steps)


def warmup_cosine(learning_rate, total_steps, warmup_steps):
    """Linear warm-up, then half a cosine to 0 (Loshchilov & Hutter 2017): Keras's CosineDecay.

    Args:
        learning_rate: float, the highest rate, at the end of the warm-up.
        total_steps: int, warm-up included.
        warmup_steps: int, at least 1.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`.
    """
    _check_total(total_steps, warmup_steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=total_steps - warmup_steps,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )


def _check_warmup(warmup_steps):
    if warmup_steps < 1:
        raise ValueError(f"warmup_steps must be at least 1. Received: warmup_steps={warmup_steps}.")


def _check_total(total_steps, warmup_steps):
    _check_warmup(warmup_steps)
    if total_steps <= warmup_steps:
        raise ValueError(
            "total_steps must be above warmup_steps. "
            f"Received: total_steps={total_steps}, warmup_steps={warmup_steps}."
        )
