"""The command line: parse, call the public API, print."""

import dataclasses
import os
import sys
from typing import Literal, NoReturn

import jsonargparse

from tfmodels._version import __version__

# What a person's input can cause: told in one line. Anything else is our fault and shows where.
_USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)  # the last: training diverges


# Options whose name may be left out: tfmodels train config.yaml
_FIRST = {"train": "--config", "evaluate": "--references"}
_USAGE = {
    "train": "tfmodels train [CONFIG.yaml] [options]",
    "evaluate": "tfmodels evaluate REFERENCES (--answers FILE | --run FOLDER) [options]",
}


class _UsageError(Exception):
    """Options that do not parse."""


class _Parser(jsonargparse.ArgumentParser):
    def error(self, message, ex=None) -> NoReturn:
        raise _UsageError(message)


def main(arguments=None):
    """Runs a command line; returns the exit code: 2 for bad input, told in one line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        command = arguments[0] if arguments and arguments[0] in _COMMANDS else None
        if command in _FIRST and len(arguments) > 1 and not arguments[1].startswith("-"):
            arguments.insert(1, _FIRST[command])
        options = _parser(command).parse_args(arguments)
        _load_tensorflow_quietly()
        _COMMANDS[options.subcommand].run(options[options.subcommand])
        sys.stdout.flush()
    except _UsageError as error:
        return _fail(f"{error} See tfmodels {command or ''} --help.".replace("  ", " "))
    except BrokenPipeError:  # who reads has enough: tfmodels generate ... | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at its end
        return 141  # as shells have it: 128 + SIGPIPE
    except _USER_ERRORS as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _load_tensorflow_quietly():
    """Imports TensorFlow and finds its devices without the notes that it prints meanwhile.

    They are written before any log level counts, so the file descriptor is turned away.
    """
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _fail(message):
    print("tfmodels: error:", " ".join(message.split()), file=sys.stderr)
    return 2


def _parser(command):
    """The parser, with the options of one command: the others' would load TensorFlow for nothing."""
    parser = _Parser(
        prog="tfmodels",
        description="Transformer models for Keras 3 on TensorFlow.",
        version=__version__,
    )
    subcommands = parser.add_subcommands(metavar="COMMAND", required=True)
    for name, choice in _COMMANDS.items():
        sub = _Parser(description=choice.__doc__, usage=_USAGE.get(name))
        if name == command:
            choice.add_options(sub)
        subcommands.add_subcommand(name, sub, help=choice.__doc__)
    return parser


class _Demo:
    """train on a packaged corpus, score, export, and call the export from another process"""

    @staticmethod
    def add_options(parser):
        parser.add_argument(
            "--task",
            type=Literal["translation", "generation"],
            default="translation",
            help="translation: English to Spanish; generation: in the manner of seven novels",
        )
        parser.add_argument(
            "--minutes",
            type=float,
            default=3.8,
            help="minutes of training; the rest takes about one more",
        )
        parser.add_argument(
            "--output", default="runs/demo", help="folder for checkpoint, logs and SavedModel"
        )
        parser.add_argument(
            "--strategy",
            type=Literal["auto", "none", "mirrored"],
            default="auto",
            help="auto takes all GPUs where there are several",
        )

    @staticmethod
    def run(options):
        if not options.minutes > 0:
            raise ValueError(f"--minutes must be above 0. Received: {options.minutes}.")
        from tfmodels.cli import demo
        from tfmodels.cli.run import check_writable

        check_writable(options.output)
        tasks = {"translation": demo.demo_translation, "generation": demo.demo_generation}
        tasks[options.task](options.minutes, options.output, options.strategy)


class _Train:
    """train a model from a YAML file of a config's fields: tfmodels train config.yaml"""

    @staticmethod
    def add_options(parser):
        from tfmodels.cli.train import TrainConfig

        parser.add_argument("--config", action="config", help="a YAML file of the fields below")
        parser.add_class_arguments(TrainConfig, fail_untyped=False)

    @staticmethod
    def run(options):
        from tfmodels.cli.train import TrainConfig, train

        fields = {name: value for name, value in vars(options).items() if name != "config"}
        folder = train(TrainConfig(**fields))
        print(f"Run folder:   {folder}")
        print(f"TensorBoard:  tensorboard --logdir {os.path.join(folder, 'logs')}")


class _Generate:
    """continue or translate texts with a trained model"""

    @staticmethod
    def add_options(parser):
        _load_tensorflow_quietly()
        from tfmodels.generation import GenerationConfig

        parser.add_argument("run", help="a run folder of tfmodels demo or train")
        parser.add_argument("prompts", nargs="*", help="texts; none: the lines of standard input")
        parser.add_argument("--file", type=str, default=None, help="a text file, each line a prompt")
        parser.add_argument("--batch_size", type=int, default=16, help="prompts computed together")
        parser.add_class_arguments(GenerationConfig)

    @staticmethod
    def run(options):
        from tfmodels.cli.generate import print_texts, read_prompts
        from tfmodels.cli.run import load_run

        config = _generation_config(options)
        prompts = read_prompts(options.prompts, options.file)
        model, tokenizer = load_run(options.run)
        print_texts(model, prompts, tokenizer, config, options.batch_size)


class _Evaluate:
    """score answers, or a trained model, on a file of references"""

    @staticmethod
    def add_options(parser):
        _load_tensorflow_quietly()
        from tfmodels.cli.evaluate import EvaluateConfig
        from tfmodels.generation import GenerationConfig

        parser.add_class_arguments(EvaluateConfig, fail_untyped=False)
        shared = {field.name for field in dataclasses.fields(EvaluateConfig)}
        parser.add_class_arguments(GenerationConfig, skip=shared)

    @staticmethod
    def run(options):
        from tfmodels.cli.evaluate import EvaluateConfig, evaluate, print_estimates

        fields = [field.name for field in dataclasses.fields(EvaluateConfig)]
        config = EvaluateConfig(**{name: options[name] for name in fields})
        print_estimates(evaluate(config, _generation_config(options)), config.output)


class _Export:
    """write a trained model as a SavedModel that takes strings and returns strings"""

    @staticmethod
    def add_options(parser):
        _load_tensorflow_quietly()
        from tfmodels.generation import GenerationConfig

        parser.add_argument("run", help="a run folder of tfmodels demo or train")
        parser.add_argument("path", help="folder of all versions; the next free number is written")
        parser.add_argument(
            "--format",
            type=Literal["tf_saved_model", "litert"],
            default="tf_saved_model",
            help="a SavedModel from strings to strings, or model.tflite with prefill and decode for devices",
        )
        parser.add_argument(
            "--quantize",
            type=Literal["int8", "bfloat16"] | None,
            help="smaller weights; the size and the loss in quality are printed",
        )
        parser.add_argument(
            "--jit_compile", type=bool, default=False, help="whether XLA compiles the generation loop"
        )
        parser.add_argument(
            "--max_length", type=int | None, help="tokens of a text that are read; otherwise the model's"
        )
        parser.add_argument("--license", help="of the weights; it travels with them")
        parser.add_argument(
            "--serving",
            type=bool,
            default=False,
            help="whether to write TF Serving's configs beside it; the folder's name, of small letters, "
            "digits and hyphens, is then the model's",
        )
        parser.add_class_arguments(GenerationConfig)

    @staticmethod
    def run(options):
        from tfmodels.cli.run import check_writable, load_run
        from tfmodels.serving import export

        config = _generation_config(options)
        if options.serving:
            from tfmodels.serving.operator import model_name, write_serving_files

            if options.format == "litert":
                raise ValueError(
                    "--serving writes configs of TF Serving, and the format must be tf_saved_model. "
                    "Received: --format litert. Leave out one of the two."
                )
            model_name(options.path)  # before the export, which takes its time
        check_writable(options.path)
        model, tokenizer = load_run(options.run)
        names = ("format", "quantize", "jit_compile", "max_length", "license")
        folder = export(model, tokenizer, options.path, config, **{name: options[name] for name in names})
        print(folder)
        _print_quality(folder)
        if options.serving:
            print(f"TF Serving:   {write_serving_files(options.path)}")


class _Check:
    """load an export in a clean process, replay its warm-up requests and measure it"""

    @staticmethod
    def add_options(parser):
        parser.add_argument("path", help="an export, or the folder of its versions: then the newest")
        parser.add_argument("--seconds", type=float, default=1.0, help="for each batch size that is measured")

    @staticmethod
    def run(options):
        from tfmodels.serving.check import check, report

        print(report(check(options.path, options.seconds)))


class _Serve:
    """serve one export with TF Serving's REST and gRPC API and a page, for development only"""

    @staticmethod
    def add_options(parser):
        parser.add_argument("path", help="an export, or the folder of its versions: then the newest")
        parser.add_argument("--name", help="of the model in requests and URLs; otherwise the folder's")
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
        parser.add_argument("--rest_port", type=int, default=8501, help="0: a free one")
        parser.add_argument("--grpc_port", type=int, default=8500, help="0: a free one")
        parser.add_argument("--max_batch_size", type=int, default=32, help="texts that run at once")

    @staticmethod
    def run(options):
        from tfmodels.serving.server.run import run

        def started(served, rest_port, grpc_port):
            place = f"http://{options.host}:{rest_port}"
            print(f"Page:  {place}/")
            print(f"REST:  {place}/v1/models/{served.name}:predict")
            print(f"gRPC:  {options.host}:{grpc_port}")
            print("For development only: TF Serving is for the rest.", flush=True)

        names = ("path", "name", "host", "rest_port", "grpc_port", "max_batch_size")
        run(**{name: options[name] for name in names}, started=started)


class _Models:
    """list the models: architectures, sizes, parameters and tasks"""

    @staticmethod
    def add_options(parser):
        pass

    @staticmethod
    def run(options):
        from tfmodels.models import list_models

        found = list_models()
        rows = [("MODEL", "SIZE", "PARAMETERS")]
        rows += [(info.architecture, info.size, f"{info.parameters:,}") for info in found]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for model, size, parameters in rows:
            print(f"{model:{widths[0]}}  {size:{widths[1]}}  {parameters:>{widths[2]}}")
        print()
        for model, tasks in {info.architecture: info.tasks for info in found}.items():
            print(f"{model}: {', '.join(tasks)}")


_COMMANDS = {
    "demo": _Demo,
    "train": _Train,
    "generate": _Generate,
    "evaluate": _Evaluate,
    "export": _Export,
    "check": _Check,
    "serve": _Serve,
    "models": _Models,
}


def _print_quality(folder):
    """What smaller weights cost, where an export has them."""
    from tfmodels.serving.check import read_card

    found = read_card(folder)["quantization"]
    if found:
        before, after = (found[name] / 1e6 for name in ("weight_bytes_before", "weight_bytes"))
        print(f"Weights:      {after:.1f} MB as {found['mode']}, {before:.1f} MB before")
        print(f"Same answers: {found['argmax_agreement']:.1%} of the highest outputs")
        print(f"Difference:   {found['relative_difference']:.2%} of the outputs' standard deviation")


def _generation_config(options):
    from tfmodels.generation import GenerationConfig

    names = [field.name for field in dataclasses.fields(GenerationConfig)]
    return GenerationConfig(**{name: options[name] for name in names})
