"""Blood glucose: a type 1 diabetes simulator, covariates, metrics and error grids; in mg/dL."""
