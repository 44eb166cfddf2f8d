"""The rooms behind `tsmjax.Forecaster`: inputs, frames, packing, passes on the device, fitting."""
