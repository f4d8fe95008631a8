"""The sizes of a tiny network, in the names of the port in `transformers`."""

SIZES = {
    'hidden_size': 32,
    'num_hidden_layers': 4,
    'num_attention_heads': 2,
    'num_blocks': 2,
    'num_queries': 24,
}
