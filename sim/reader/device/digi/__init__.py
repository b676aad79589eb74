# The package of the device; only ble is used.
