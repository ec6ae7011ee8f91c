def head_signatures(model, tokenizer, max_length):
    pass
