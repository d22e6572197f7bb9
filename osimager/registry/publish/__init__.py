"""Publishers: somewhere that a finished image is given to, one module each."""
