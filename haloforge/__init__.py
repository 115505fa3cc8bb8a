"""haloforge: makes a code model better with the compiler and the tests as its teacher."""

__version__ = "0.1.0"
