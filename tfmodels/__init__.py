from tfmodels._version import __version__ 
