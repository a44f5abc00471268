"""A package, so that ``from tests.wire import ...`` finds this directory and not a ``tests`` that gmqtt installs."""
