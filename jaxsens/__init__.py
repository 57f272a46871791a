"""Sensitivity of image classifiers to how an image is taken.

Import the modules that are needed, for instance

    from jaxsens import classifiers
    from jaxsens import sensitivity
    from jaxsens.perturbations import chains
"""
