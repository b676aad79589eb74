# The number is the module's, not Linux's: ENOTCONN is seen as 7107 and ETIMEDOUT as 7110 in Digi's forum; this one
# follows their pattern. Code must compare with the name.
EAGAIN = 7011
