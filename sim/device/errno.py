# The numbers are the module's, not Linux's: 7107 and 7110 are seen in Digi's forum, the others follow their pattern.
EIO = 7005
EAGAIN = 7011
ENODEV = 7019
ENOTCONN = 7107
ETIMEDOUT = 7110
