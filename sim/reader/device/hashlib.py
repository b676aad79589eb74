from uhashlib import sha256  # noqa: F401  - and nothing else: the module has no md5, no sha1
