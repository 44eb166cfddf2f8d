"""Forecasters of tables that tests share."""

import jax
import pytest
import shops

from tsmjax import Forecaster


@pytest.fixture(scope="module", autouse=True)
def compiled_as_users_do():
    """Forecasts of about 100 are compared here to the last digits of float32."""
    option = "jax_disable_most_optimizations"
    before = jax.config.values[option]
    jax.config.update(option, False)
    yield
    jax.config.update(option, before)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed") / "hf"
    return Forecaster.from_pretrained(shops.save(folder, shops.MIXED, shops.SCALERS))


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """Channel by channel, with quantiles and a frequency token, and without scalers."""
    folder = tmp_path_factory.mktemp("alone") / "hf"
    return Forecaster.from_pretrained(shops.save(folder, shops.LEVELS))
