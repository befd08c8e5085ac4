"""What can be trained beside the named sizes: any causal language model of ``transformers``, and saved models."""
