"""What firmware modules take from `micropython`, for CPython."""


def const(value):
    return value


def native(function):
    return function


def viper(function):
    raise NotImplementedError("viper code runs on MicroPython only")


def schedule(function, argument):
    function(argument)
