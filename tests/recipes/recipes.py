"""All recipes, in the order of the table in CONTRIBUTING.md."""

from tests.recipes import faults, messages, page, settings

ALL = (
    messages.EVENT,
    messages.TOPIC,
    settings.GATEWAY_OPTION,
    settings.CITY_OPTION,
    page.PAGE,
    faults.DEMO_FAULT,
    faults.READER_FAULT,
)
