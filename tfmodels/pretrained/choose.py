"""Which head a folder becomes: the one that config.json names, or the one of `task=`."""

import dataclasses
import difflib

from tfmodels.pretrained.architecture import all_heads
from tfmodels.pretrained.sentence_transformers import read_sentence_fields

# Another name for a task, and whether its problem is regression.
_BY_PROBLEM = {"sequence_classification": False, "regression": True}
# Fields of the backbone's config that training alone follows: no tensor and no answer depends on them.
_TRAINING = (
    "dropout",
    "embedding_dropout",
    "attention_dropout",
    "intermediate_dropout",
    "label_smoothing",
    "rematerialise",
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A class of transformers for a folder.

    Attributes:
        name: str, of the class.
        head: its `Head`.
        config: the head's config, or None for a bare model.
        fresh: bool, whether the head's weights are not the folder's.
        training: dict of fields of the backbone's config that were asked for.
    """

    name: str
    head: object
    config: object
    fresh: bool
    training: dict


def choose(fields, architecture, checkpoint, task, options):
    """Reads the head's config and decides where its weights come from.

    Args:
        fields: `Fields` of the folder.
        architecture: `Architecture` of the folder.
        checkpoint: `Checkpoint` of the folder.
        task: str or None, as in `from_pretrained`.
        options: dict of the head config's fields and of those of the backbone's that training follows.

    Returns:
        A `Choice`.

    Raises:
        ValueError: an unknown class, task or option, or one that has no meaning here.
    """
    stored = _stored_name(fields, architecture)
    if task is None and stored is None:
        raise ValueError(
            f"config.json: architectures must name one of {', '.join(architecture.heads)}. "
            f"Received: {fields.get('architectures', [])!r}. Pass task= to choose."
        )
    name, head = (stored, architecture.heads[stored]) if task is None else _of_task(architecture, task)
    of_head = _head_fields(head)
    of_backbone = [field for field in _training_fields(head, architecture) if field not in of_head]
    _check_options(name, options, of_head, of_backbone)
    training = {option: value for option, value in options.items() if option in of_backbone}
    options = {option: value for option, value in options.items() if option in of_head}
    if task == "sentence_embedding":
        values = read_sentence_fields(checkpoint.folder)
        return Choice(name, head, head.model.config_class(**(values | options)), False, training)
    values = {} if head.model is None else head.read(fields)
    fresh = False
    if task in _BY_PROBLEM and (values["problem"] == "regression") != _BY_PROBLEM[task]:
        # The folder's labels are those of another problem.
        problem = "regression" if _BY_PROBLEM[task] else "single_label"
        values, fresh = values | {"problem": problem, "num_labels": None, "labels": None}, True
    if options.keys() & {"num_labels", "labels"}:  # one of them says the other
        values = values | {"num_labels": None, "labels": None}
    backbone = head.backbone_config(architecture.read_config(fields))
    config = head.config(backbone, **(values | options))
    if task is not None and not fresh:
        tensors = head.own_tensors(backbone, config)
        known = None if stored is None else architecture.heads[stored]
        names = () if known is None else _names(known, backbone)
        fresh = not _is_stored(head, known, tensors, names, checkpoint)
        if not fresh and options:  # another number of labels has other weights
            fresh = any(checkpoint.shapes[t.name] != t.shape for t in tensors)
    return Choice(name, head, config, fresh, training)


def known_names(architecture, backbone_config):
    """Names of the tensors of all heads of an architecture."""
    return set().union(*(_names(head, backbone_config) for _, head in all_heads(architecture)))


def _names(head, backbone_config):
    config = head.config(backbone_config)
    return {entry.name for entry in head.own_tensors(backbone_config, config)} | set(head.unused)


def _stored_name(fields, architecture):
    """The class that config.json names, if it is one that loads."""
    names = fields.get("architectures", [])
    single = isinstance(names, list) and len(names) == 1 and isinstance(names[0], str)
    return names[0] if single and names[0] in architecture.heads else None


def _of_task(architecture, task):
    """The class name and `Head` of a task."""
    tasks = {head.task: (name, head) for name, head in reversed([*all_heads(architecture)]) if head.task}
    if "sequence_classification" in tasks:
        tasks["regression"] = tasks["sequence_classification"]
    if task not in tasks:
        raise ValueError(
            f"task must be one of {', '.join(sorted(tasks))} for {architecture.model_type}. "
            f"Received: task={task!r}."
        )
    return tasks[task]


def _head_fields(head):
    """The fields of the head's config that this class leaves open."""
    config_class = None if head.model is None else head.model.config_class
    names = [] if config_class is None else [field.name for field in dataclasses.fields(config_class)]
    return [field for field in names if field not in head.fixed]


def _training_fields(head, architecture):
    """Those of `_TRAINING` that the backbone's config has and the model follows."""
    config_class = (head.backbone_class or architecture.backbone).config_class
    names = [field.name for field in dataclasses.fields(config_class) if field.name in _TRAINING]
    language_model = head.model is None and head.backbone_class is None
    return [name for name in names if language_model or name != "label_smoothing"]  # of its own loss


def _check_options(name, options, of_head, of_backbone):
    """Each option is one of these fields."""
    for option in options:
        if option not in of_head + of_backbone:
            close = difflib.get_close_matches(option, of_head + of_backbone, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"from_pretrained has no option {option!r} for {name}.{hint} "
                f"Its head's fields: {', '.join(of_head) or 'none'}. "
                f"Its backbone's: {', '.join(of_backbone) or 'none'}."
            )


def _is_stored(head, known, tensors, known_tensors, checkpoint):
    """Whether the folder's tensors of these names are this head's weights.

    The classes of one architecture share names: "classifier.weight" may be of sequences or tokens.
    """
    if known is not None and (known is head or known.task == head.task):
        return True  # what is missing then is an error
    if not all(entry.name in checkpoint.shapes for entry in tensors):
        return False
    if known is None or known.task in head.includes or head.task in known.includes:
        return True
    return not known_tensors & {entry.name for entry in tensors}
