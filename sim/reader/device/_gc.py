from gc import collect, mem_alloc, mem_free, threshold  # noqa: F401  - and nothing else
