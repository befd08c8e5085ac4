"""What end-of-text is called in a tokenizer. Free of torch and of tokenizers, so an export can read it."""

END_OF_TEXT = "<|endoftext|>"
KNOWN_END_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|im_end|>")
