"""GGUF files in and out: one table for each thing that both directions need, read one way and the other."""
