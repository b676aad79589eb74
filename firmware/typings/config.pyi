# Written by provisioning, never in the repository. BELLS, LAMP and BUZZER may be missing.
READER: int
KEY: bytes
COMPANY_ID: int
