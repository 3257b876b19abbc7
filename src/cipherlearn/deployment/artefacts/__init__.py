"""The files of a model: data, checked before it is used."""
