from uhashlib import sha256  # and nothing else: the module has no md5 and no sha1
