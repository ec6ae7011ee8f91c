"""`tfmodels demo`: from a packaged corpus to answers of a SavedModel, in minutes on a laptop."""

import json
import os
import subprocess
import sys
import time

# Test and validation sentences: the whole splits' verses of at most this length.
_MAX_TEST_WORDS = 18
_EPOCHS = 4


def demo_translation(minutes, output, strategy):
    """English to Spanish bible verses: trains, scores, exports, and calls the export."""
    import sacrebleu

    import tfmodels
    from tfmodels.cli.baselines import dictionary_translate

    def short(split, words):
        pairs = tfmodels.datasets.load("mt_enes_bible", split)
        return [pair for pair in pairs if len(pair[0].split()) <= words]

    train_pairs = short("train", 24)
    valid_pairs, test_pairs = short("valid", _MAX_TEST_WORDS), short("test", _MAX_TEST_WORDS)
    print(
        f"English to Spanish bible verses (public domain): {len(train_pairs)} for training, "
        f"{len(test_pairs)} for the test, of at most {_MAX_TEST_WORDS} words"
    )
    tokenizer = _learn_vocabulary(
        (side for pair in train_pairs for side in pair), 2000, normalization="nmt_nfkc"
    )

    def examples(pairs):
        return tfmodels.data.sequence_to_sequence(pairs, tokenizer, max_length=80)

    def build():
        return tfmodels.models.transformer(
            "tiny", vocabulary_size=tokenizer.vocabulary_size, norm_first=True, dropout=0.0
        )

    train_data = tfmodels.data.batches(
        examples(train_pairs), tokens_per_batch=2048, shuffle=True, repeat=True
    )
    valid_data = tfmodels.data.batches(examples(valid_pairs), tokens_per_batch=2048)
    model = _train(build, tokenizer, train_data, valid_data, minutes, output, strategy)

    sources, references = (list(side) for side in zip(*test_pairs, strict=True))
    options = {"method": "beam", "num_beams": 4, "max_new_tokens": 60}
    answers = _translate(model, tokenizer, sources, options)

    def bleu(hypotheses):
        return sacrebleu.corpus_bleu(hypotheses, [references]).score

    words = dictionary_translate(train_pairs, sources)
    print(f"\nBLEU on all {len(sources)} test verses of at most {_MAX_TEST_WORDS} words (sacreBLEU):")
    print(f"  {bleu(sources):5.1f}  copying the source")
    print(f"  {bleu(words):5.1f}  word for word, by a dictionary learnt from the same verses")
    print(f"  {bleu(answers):5.1f}  this model, beam search with {options['num_beams']} beams")
    for i in range(0, len(sources), len(sources) // 5):
        print(f"\n  English    {sources[i]}\n  model      {answers[i]}\n  reference  {references[i]}")
    _finish(model, tokenizer, output, options, sources[:3], answers[:3])


def demo_generation(minutes, output, strategy):
    """A GPT-2 on seven novels: trains, measures bits per byte, exports, and calls the export."""
    import math

    import tfmodels

    texts = {s: tfmodels.datasets.load("lm_novels", s) for s in ("train", "valid", "test")}
    print(f"Seven novels (public domain): {sum(map(len, texts['train'])) / 1e6:.1f} MB for training")
    # Lossless: bits per byte count every byte of the text.
    tokenizer = _learn_vocabulary(texts["train"], 4000, normalization="identity")
    length = 128

    def examples(split, stride=None):
        return tfmodels.data.causal_language_modelling(texts[split], tokenizer, length, stride)

    def build():
        return tfmodels.models.gpt2(
            "tiny", vocabulary_size=tokenizer.vocabulary_size, max_sequence_length=length, dropout=0.0
        )

    train_data = tfmodels.data.batches(examples("train"), 32, shuffle=True, repeat=True)
    valid_data = tfmodels.data.batches(examples("valid"), 32)
    model = _train(build, tokenizer, train_data, valid_data, minutes, output, strategy)

    # Rows overlap by half, so that each token is scored with at least half a row before it.
    test_data = tfmodels.data.batches(examples("test", length // 2), 32)
    perplexity = model.evaluate(test_data, verbose=0, return_dict=True)["perplexity"]
    paragraphs = [text for text in texts["test"] if text]
    tokens = sum(int(weight.numpy().sum()) for _, _, weight in test_data)
    size = sum(len(text.encode()) + 1 for text in paragraphs)  # with the newline
    print(f"\nOn the novels' test text, {size:,} bytes in {tokens:,} tokens:")
    print(f"  {tokens * math.log2(perplexity) / size:.3f}  bits per byte (xz after the training text: 2.14)")
    print(f"  {perplexity:.1f}  perplexity a token")

    chosen = [text for text in paragraphs if len(text.split()) > 40][:4]
    prompts = [" ".join(text.split()[:8]) for text in chosen]
    options = {"method": "sample", "temperature": 0.8, "top_k": 40, "max_new_tokens": 40}
    answers = tfmodels.generate(model, prompts, tokenizer, **options).text
    for prompt, answer, text in zip(prompts, answers, chosen, strict=True):
        print(f"\n  prompt     {prompt}\n  model      {answer}")
        print(f"  reference  {' '.join(text.split()[8:40])}")
    _finish(model, tokenizer, output, options, prompts, answers)


def _learn_vocabulary(texts, size, normalization):
    from tfmodels.tokenizers import SentencePieceTokenizer

    start = time.monotonic()
    tokenizer = SentencePieceTokenizer.train(texts, size, normalization=normalization)
    print(f"Learnt {size} pieces in {time.monotonic() - start:.0f} s")
    return tokenizer


def _train(build, tokenizer, train_data, valid_data, minutes, output, strategy_name):
    """Trains for the given minutes, saves the model and its tokenizer, and returns the model."""
    import keras

    from tfmodels.cli.run import check_writable, needed_bytes, save_model
    from tfmodels.training import TensorBoard, TimeBudget, make_strategy

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    strategy = make_strategy(strategy_name)
    with strategy.scope():
        model = build()
        model.compile(keras.optimizers.Muon(0.02, adam_lr_ratio=0.3, weight_decay=0.01))
    check_writable(output, needed_bytes(model))
    os.makedirs(output, exist_ok=True)
    print(f"{model.count_params():,} parameters, {minutes:g} minutes of training")
    budget = TimeBudget(minutes * 60, learning_rate=0.02, warmup_steps=50)
    steps = _steps_an_epoch(model, train_data, minutes, budget)
    logs = os.path.join(output, "logs")
    model.fit(
        train_data,
        steps_per_epoch=steps,
        epochs=_EPOCHS,
        validation_data=valid_data,
        validation_steps=sum(1 for _ in valid_data),
        shuffle=False,
        callbacks=[budget, TensorBoard(logs, update_freq=10)],
    )
    tokenizer.save(os.path.join(output, "tokenizer.model"))
    save_model(model, os.path.join(output, "model.keras"))
    return model


def _steps_an_epoch(model, train_data, minutes, budget):
    """Trains a few steps to measure their time: how many make an epoch, for the progress bar.

    A few more than the time allows, so that the time ends the training and not the steps.
    """
    measured = 24
    start = []

    def on_train_batch_end(batch, logs):
        start.append(time.monotonic())

    import keras

    model.fit(
        train_data,
        steps_per_epoch=measured,
        shuffle=False,
        verbose=0,
        callbacks=[budget, keras.callbacks.LambdaCallback(on_train_batch_end=on_train_batch_end)],
    )
    # The first steps compile. A time of a few steps may be over already.
    half = len(start) // 2
    seconds = max(start[-1] - start[half], 1e-3) / max(len(start) - 1 - half, 1)
    return max(1, int(1.1 * minutes * 60 / seconds / _EPOCHS))


def _translate(model, tokenizer, sources, options, batch_size=64):
    """Translates sentences in batches of like length."""
    import tfmodels

    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    answers = [None] * len(sources)
    for begin in range(0, len(order), batch_size):
        part = order[begin : begin + batch_size]
        result = tfmodels.generate(model, [sources[i] for i in part], tokenizer, **options)
        for i, text in zip(part, result.text, strict=True):
            answers[i] = text
    return answers


def _finish(model, tokenizer, output, options, prompts, answers):
    """Exports, and asks the export from a process without this package."""
    import tfmodels

    exported = tfmodels.export(model, tokenizer, os.path.join(output, "export"), **options)
    print(f"\nTensorBoard:  tensorboard --logdir {os.path.join(output, 'logs')}")
    print(f"Keras model:  {os.path.join(output, 'model.keras')}")
    print(f"SavedModel:   {exported}")
    print("\nThe SavedModel, asked by a process that imports tensorflow and tensorflow_text only:")
    script = os.path.join(os.path.dirname(__file__), "call_saved_model.py")
    # -I: nothing from this folder or the environment's paths.
    done = subprocess.run(
        [sys.executable, "-I", script, exported],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the SavedModel did not answer: {done.stderr.strip().splitlines()[-1]}")
    served = json.loads(done.stdout)
    for prompt, answer in zip(prompts, served, strict=True):
        print(f"  {prompt}\n    -> {answer}")
    same = sum(a == b for a, b in zip(served, answers, strict=True))
    print(f"  {same} of {len(answers)} equal tfmodels.generate's")
